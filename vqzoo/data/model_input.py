"""What a network expects of its images and labels, read off the network as it is.

timm's `pretrained_cfg` describes the weights that a network was created with. `in_chans`,
`img_size` or another first layer may have changed its input since, so these are asked first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from timm.data import resolve_model_data_config
from torch import nn

from vqzoo.errors import UsageError
from vqzoo.wrappers import as_network

# A first layer with more input channels does not see the image, but blocks of pixels (TResNet).
_MOST_CHANNELS = 10


@dataclass(frozen=True)
class ModelInput:
    """What a model expects of its images and labels.

    Attributes:
        config: timm's data config.
        num_classes: the model's classes, None where unknown or where `own_labels` is set.
        label_names: the model's own names of its classes, empty where it has none.
        own_labels: label images by the data's classes, which need not be the model's.
    """

    config: dict[str, Any]
    num_classes: int | None
    label_names: tuple[str, ...]
    own_labels: bool

    @property
    def mode(self) -> str:
        """The PIL mode that has the model's number of channels."""
        return "L" if self.config["input_size"][0] == 1 else "RGB"


def input_of(model: nn.Module, own_labels: bool = False) -> ModelInput:
    """What `model` expects; see `open_data` for `own_labels`.

    Where timm's config has three means and the model takes grey images, their mean is used, and
    that of the standard deviations: timm sums the weights of the three channels for such models.

    Raises:
        UsageError: the model's preprocessing is not known, or it takes neither 1 nor 3 channels.
    """
    model = as_network(model)
    config = resolve_model_data_config(model)
    channels, height, width = input_size(model)
    if channels not in (1, 3):
        raise UsageError(
            f"the model takes images of {channels} channels; vqzoo prepares images of 1 or 3"
        )
    config["input_size"] = (channels, height, width)
    for key in ("mean", "std"):
        config[key] = _for_channels(config[key], channels)
    cfg = getattr(model, "pretrained_cfg", None) or {}
    classes = None if own_labels else getattr(model, "num_classes", None)
    return ModelInput(config, classes, tuple(cfg.get("label_names") or ()), own_labels)


def input_size(model: nn.Module) -> tuple[int, int, int]:
    """Channels, height and width of the images that `model` takes.

    Raises:
        UsageError: `model` is no network.
    """
    model = as_network(model)
    channels, height, width = resolve_model_data_config(model)["input_size"]
    height, width = _image_size(model) or (height, width)
    return _channels(model, channels), height, width


def _image_size(model: nn.Module) -> tuple[int, int] | None:
    """The size that the model was built for; None where it does not say."""
    for module in model.modules():
        for name in ("img_size", "image_size"):  # of timm, of torchvision
            if (size := _as_pair(getattr(module, name, None))) is not None:
                return size
    arguments = getattr(model, "_model_args", None)  # how recent versions of timm created it
    return _as_pair(arguments.get("img_size")) if isinstance(arguments, Mapping) else None


def _as_pair(size: Any) -> tuple[int, int] | None:
    pair = (size, size) if type(size) is int else size
    if not isinstance(pair, tuple | list) or [type(side) for side in pair] != [int, int]:
        return None
    return (pair[0], pair[1]) if min(pair) > 0 else None


def _channels(model: nn.Module, configured: int) -> int:
    """The channels of the layer that sees the image, else what the model or its config says."""
    first = _first_convolution(model)
    if first is not None and first.in_channels <= _MOST_CHANNELS:
        return first.in_channels
    declared = getattr(model, "in_chans", None)
    return declared if type(declared) is int else configured


def _first_convolution(model: nn.Module) -> nn.Conv2d | None:
    """The convolution that timm's config calls the first, or else the first of the modules."""
    cfg = getattr(model, "pretrained_cfg", None) or {}
    names = cfg.get("first_conv") or ()
    named = dict(model.named_modules())
    chosen = [named.get(name) for name in ([names] if isinstance(names, str) else names)]
    candidates = [*chosen, *named.values()]
    return next((module for module in candidates if isinstance(module, nn.Conv2d)), None)


def _for_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(values) in (1, channels):
        return tuple(values)
    if channels == 1:
        return (sum(values) / len(values),)
    raise UsageError(
        f"the model takes {channels}-channel images, but its config has {len(values)} means: its "
        "preprocessing is not known"
    )

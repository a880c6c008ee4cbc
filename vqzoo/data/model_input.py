"""What a network expects of its images and labels, read off the network as it is.

timm's `pretrained_cfg` describes the weights that a network was created with. `in_chans`,
`img_size` or another first layer may have given it another input since.
"""

from dataclasses import dataclass
from typing import Any

from timm.data import resolve_model_data_config
from timm.models import get_model_input_config
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

    The channels are those of the layer that sees the image; the size is what timm or torchvision
    built the model for, and otherwise that of its config.

    Raises:
        UsageError: `model` is no network.
    """
    model = as_network(model)
    if getattr(model, "pretrained_cfg", {}) is None:
        channels, height, width = 3, 224, 224  # timm's default
    else:
        channels, height, width = get_model_input_config(model)["input_size"]
    side = getattr(model, "image_size", None)  # of torchvision's ViT
    if type(side) is int:
        height = width = side
    first = _first_convolution(model)
    if first is not None and first.in_channels <= _MOST_CHANNELS:
        channels = first.in_channels
    return channels, height, width


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

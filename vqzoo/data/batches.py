"""Images as a model wants them, in batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn

from vqzoo.data.fmnist import LabelledImages
from vqzoo.data.image_modes import to_eight_bits
from vqzoo.errors import UsageError, VqzooError

BATCH_SIZE = 250

# An image and its label, None for an image without, from what stands for it.
Loader = Callable[[Any], tuple[Image.Image, int | None]]


class Batch(NamedTuple):
    """Preprocessed images (float32, B x C x H x W); labels (int64, B) where there are any."""

    images: Tensor
    labels: Tensor | None


@dataclass(frozen=True)
class Data:
    """Images for one model; iterating gives `Batch`es, the same ones every time.

    `name` is fit for a report (never a local path); `images` is how many there are, None for a
    stream of unknown length; `num_classes` the data's own number of classes, None where unknown;
    `unlabelled` says why there are no labels for this model, and is empty where there are.
    """

    name: str
    images: int | None
    num_classes: int | None
    unlabelled: str
    batches: Callable[[], Iterator[Batch]]

    @property
    def labelled(self) -> bool:
        """Whether every batch has labels: this model's classes, or the data's own if so opened."""
        return not self.unlabelled

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()


@dataclass(frozen=True)
class ModelInput:
    """What a model wants: timm's data config, and its number of classes (None where unknown).

    With `own_labels` the classes are the data's own, and need not be the model's.
    """

    config: dict[str, Any]
    num_classes: int | None
    label_names: tuple[str, ...]
    own_labels: bool

    @property
    def mode(self) -> str:
        """PIL's mode with the model's number of channels."""
        return "L" if self.config["input_size"][0] == 1 else "RGB"


def input_of(model: nn.Module, own_labels: bool = False) -> ModelInput:
    """What `model` wants; see `open_data` for `own_labels`.

    Raises:
        UsageError: its preprocessing is not known.
    """
    config = resolve_model_data_config(model)
    channels = config["input_size"][0]
    if channels not in (1, 3):
        raise UsageError(f"the model takes images of {channels} channels; only 1 and 3 are known")
    if any(len(config[key]) not in (1, channels) for key in ("mean", "std")):
        raise UsageError(
            f"the model takes {channels}-channel images, but its config has {len(config['mean'])} "
            "means: its preprocessing is not known"
        )
    cfg = getattr(model, "pretrained_cfg", None) or {}
    classes = None if own_labels else getattr(model, "num_classes", None)
    return ModelInput(config, classes, tuple(cfg.get("label_names") or ()), own_labels)


def check_classes(name: str, found: int | None, wanted: int | None) -> None:
    """Raises UsageError where data of `found` classes is not for a model of `wanted` ones."""
    if found is not None and wanted is not None and found != wanted:
        raise UsageError(
            f"{name} has {found} classes, the model {wanted}: choose data that the model knows, "
            "or a folder of images for agreement with the dense model"
        )


def split_batches(split: LabelledImages, wanted: ModelInput, batch_size: int) -> Iterator[Batch]:
    """Small grey images as a model wants them, in their order."""
    if wanted.config["input_size"] == (1, 28, 28) and wanted.config["crop_pct"] == 1.0:
        return _normalized_batches(split, wanted, batch_size)
    load = partial(_small_image, split)
    return transformed_batches(load, range(len(split)), wanted, batch_size)


def _normalized_batches(
    split: LabelledImages, wanted: ModelInput, batch_size: int
) -> Iterator[Batch]:
    """What timm's transform does where nothing is resized or cropped, a batch at a time."""
    mean, std = (torch.tensor(wanted.config[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    for start in range(0, len(split), batch_size):
        images, labels = split[start : start + batch_size]
        yield Batch(images.float().div_(255).sub_(mean).div_(std), labels)


def _small_image(split: LabelledImages, index: int) -> tuple[Image.Image, int]:
    image, label = split[index]
    return Image.fromarray(image.squeeze(0).numpy()), int(label)


def transformed_batches(
    load: Loader,
    keys: Iterable[Any],
    wanted: ModelInput,
    batch_size: int,
) -> Iterator[Batch]:
    """Load and transform on a few threads, one batch ahead of the caller, in the order of `keys`.

    `load` gives an image and its label, None for images without; all or none have one.
    """
    transform = create_transform(**wanted.config, is_training=False)

    def sample(key: Any) -> tuple[Tensor, int | None]:
        image, label = load(key)
        return transform(to_eight_bits(image, wanted.mode)), label

    rest = iter(keys)
    with ThreadPoolExecutor(min(8, torch.get_num_threads())) as pool:

        def submit() -> list[Any]:
            return [pool.submit(sample, key) for key in itertools.islice(rest, batch_size)]

        ahead = submit()
        while ahead:
            now, ahead = ahead, submit()
            try:
                samples = [future.result() for future in now]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
            images = torch.stack([image for image, _ in samples])
            labels = [label for _, label in samples if label is not None]
            if len(labels) not in (0, len(samples)):
                raise VqzooError("some images have labels and some have none")
            yield Batch(images, torch.tensor(labels) if labels else None)

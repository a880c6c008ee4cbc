"""Batches of images, preprocessed for a model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor

from vqzoo.data.fmnist import LabelledImages
from vqzoo.data.image_modes import to_eight_bits
from vqzoo.data.model_input import ModelInput
from vqzoo.errors import UsageError, VqzooError

BATCH_SIZE = 250

# Loads the image behind a key, with its label; None where the image has no label.
Loader = Callable[[Any], tuple[Image.Image, int | None]]


class Batch(NamedTuple):
    """Preprocessed images (float32, B x C x H x W) and labels (int64, B) if they have any."""

    images: Tensor
    labels: Tensor | None


@dataclass(frozen=True)
class Data:
    """Images for one model; every iteration gives the same `Batch`es.

    Attributes:
        name: fit for a report, never a local path.
        images: number of images, None for a stream of unknown length.
        num_classes: the data set's own number of classes, None where unknown.
        unlabelled: why the images have no labels for this model; empty where they have.
        batches: starts an iteration.
        labels: how class folders became labels, for the user; empty for other data.
        unreadable: names of the images that are left out because they cannot be read.
        content: gives a hash of the stored images and their labels, wherever they are stored; None
            where `name` says all that is known about them.
    """

    name: str
    images: int | None
    num_classes: int | None
    unlabelled: str
    batches: Callable[[], Iterator[Batch]]
    labels: str = ""
    unreadable: tuple[str, ...] = ()
    content: Callable[[], str] | None = None

    @property
    def labelled(self) -> bool:
        """Whether every batch has labels: the model's classes, or with `own_labels` the data's."""
        return not self.unlabelled

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()


def check_classes(name: str, data_classes: int | None, model_classes: int | None) -> None:
    """Refuse data whose number of classes is not the model's; None stands for unknown.

    Raises:
        UsageError: the numbers differ.
    """
    if data_classes is None or model_classes is None or data_classes == model_classes:
        return
    raise UsageError(
        f"{name} has {data_classes} classes, the model {model_classes}: choose data with the "
        "model's classes, or a folder of images for agreement with the dense model"
    )


def split_batches(
    split: LabelledImages, model_input: ModelInput, batch_size: int
) -> Iterator[Batch]:
    """Preprocess small grey images for a model, in their order."""
    config = model_input.config
    if config["input_size"] == (1, 28, 28) and config["crop_pct"] == 1.0:
        return _normalized_batches(split, model_input, batch_size)
    load = partial(_small_image, split)
    return transformed_batches(load, range(len(split)), model_input, batch_size)


def _normalized_batches(
    split: LabelledImages, model_input: ModelInput, batch_size: int
) -> Iterator[Batch]:
    """timm's transform where nothing is resized or cropped, a batch at a time."""
    mean, std = (torch.tensor(model_input.config[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    for start in range(0, len(split), batch_size):
        images, labels = split[start : start + batch_size]
        yield Batch(images.float().div_(255).sub_(mean).div_(std), labels)


def _small_image(split: LabelledImages, index: int) -> tuple[Image.Image, int]:
    image, label = split[index]
    return Image.fromarray(image.squeeze(0).numpy()), int(label)


def transformed_batches(
    load: Loader,
    keys: Iterable[Any],
    model_input: ModelInput,
    batch_size: int,
) -> Iterator[Batch]:
    """Load and transform images on a few threads, in the order of `keys`, one batch ahead.

    Args:
        load: loads the image behind a key. Either all images have labels or none has.
        keys: what `load` takes.
        model_input: what the model expects.
        batch_size: images in a batch.

    Raises:
        VqzooError: some of the images in a batch have labels and others have none.
    """
    transform = create_transform(**model_input.config, is_training=False)

    def sample(key: Any) -> tuple[Tensor, int | None]:
        image, label = load(key)
        return transform(to_eight_bits(image, model_input.mode)), label

    return loaded_batches(sample, keys, batch_size)


def loaded_batches(
    sample: Callable[[Any], tuple[Tensor, int | None]], keys: Iterable[Any], batch_size: int
) -> Iterator[Batch]:
    """Load tensors on a few threads, in the order of `keys`, one batch ahead.

    Args:
        sample: gives the image (C x H x W) and the label behind a key.
        keys: what `sample` takes.
        batch_size: images in a batch.

    Raises:
        VqzooError: some of the images in a batch have labels and others have none.
    """
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

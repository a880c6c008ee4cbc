"""Training images as settings ask for them."""

from collections.abc import Iterable
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn

from vqzoo.data.batches import Data
from vqzoo.data.sources import READ_ALL, ReadOptions
from vqzoo.data.training_data import TrainingData, given_batches, open_training_data
from vqzoo.errors import UsageError


class ImageSettings(Protocol):
    """The settings of training images."""

    @property
    def batch_size(self) -> int:
        """Images per step."""

    @property
    def augment(self) -> bool:
        """Whether images are shifted and mirrored (or cropped) at random."""

    @property
    def images(self) -> int | None:
        """At most this many training images; None for all."""


def open_images(
    spec: str, model: nn.Module, settings: ImageSettings, seed: int, read: ReadOptions
) -> TrainingData:
    """`open_training_data` with the batch size, augmentation and number of images of `settings`."""
    return open_training_data(
        spec,
        model,
        batch_size=settings.batch_size,
        augment=settings.augment,
        images=settings.images,
        seed=seed,
        read=read,
    )


def open_or_convert(
    data: str | Iterable[Any],
    validation: Iterable[Any] | None,
    model: nn.Module,
    settings: ImageSettings,
    seed: int,
    read: ReadOptions,
) -> TrainingData:
    """Training images from text, as `open_images`, or from preprocessed batches.

    Raises:
        UsageError: `validation` comes with text, or options of reading with batches.
    """
    if isinstance(data, str):
        if validation is not None:
            raise UsageError(f"{data}: a part of it is held out already; omit validation")
        return open_images(data, model, settings, seed, read)
    if read != READ_ALL:
        raise UsageError("class_map and skip_unreadable are for data given as text: leave them out")
    if validation is None:
        return given_batches(data)
    held_out = given_batches(validation)
    again = partial(held_out.batches, torch.Generator())
    return given_batches(data, Data(held_out.name, None, None, "", again))

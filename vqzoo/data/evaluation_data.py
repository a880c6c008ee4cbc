"""Images to evaluate a model on, preprocessed for it.

A data specification names them: `fmnist` (the embedded test split), `imagefolder:PATH`, or a data
set under the name that timm's `create_dataset` takes: `hfds/...`, `hfids/...`, `tfds/...`,
`wds/...`, `torch/...`. Nothing here may serve training or calibration: `vqzoo.data.training_data`
and `vqzoo.data.calibration_data` open images for those.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from vqzoo.data import fmnist
from vqzoo.data.batches import (
    BATCH_SIZE,
    Batch,
    Data,
    check_classes,
    split_batches,
    transformed_batches,
)
from vqzoo.data.class_folders import warn_of_order
from vqzoo.data.kept_pixels import kept_batches
from vqzoo.data.model_input import ModelInput, input_of
from vqzoo.data.sources import (
    READ_ALL,
    ReadOptions,
    content_hash,
    open_source,
    readable_keys,
    refuse_class_map,
)
from vqzoo.errors import UsageError

__all__ = ["BATCH_SIZE", "Batch", "Data", "open_data"]


def open_data(
    spec: str,
    model: nn.Module,
    *,
    split: str | None = None,
    images: int | None = None,
    batch_size: int = BATCH_SIZE,
    own_labels: bool = False,
    num_classes: int | None = None,
    read: ReadOptions = READ_ALL,
) -> Data:
    """Open the images that `spec` names, preprocessed as timm evaluates `model`.

    Channels and size are those of the model as it is (`vqzoo.data.model_input`).

    Class folders count as the model's classes as a class map says. Without one, they do where their
    names say so: all of them are among the model's own label names, or all of them are ImageNet
    synsets and the model has ImageNet's classes (either may be a subset of the classes). Otherwise
    they count as the model's classes in natural order, as in timm, where there are as many folders
    as classes; a `ClassOrderWarning` says where text order, as in torchvision, would give other
    labels. Any other folder of images is unlabelled.

    Args:
        spec: `fmnist`, `imagefolder:PATH`, or a data set under timm's name (`hfds/...`,
            `torch/...`).
        model: a timm model, or one that has its `pretrained_cfg` and `num_classes`.
        split: a split of one of timm's data sets, `validation` unless given.
        images: use at most this many, evenly spaced over the data set in its own order (the first
            images of a data set sorted by class all have one class); of a stream, the first ones.
        batch_size: images in a batch.
        own_labels: label images by the data's classes, whatever the model's, to compare images
            with one another. Class folders count as classes 0, 1, ... in natural order, or as a
            class map says.
        num_classes: the model's classes, where it does not say (networks that are not timm's).
        read: the class map, and what happens with images that cannot be read.

    Raises:
        UsageError: the specification, the split or `images` is invalid, the data's classes are not
            the model's, or the model takes images of neither 1 nor 3 channels.
        VqzooError: the data is missing or cannot be read.
    """
    if images is not None and images < 1:
        raise UsageError(f"{images} images: choose at least 1")
    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size}: choose at least 1")
    model_input = input_of(model, own_labels)
    if model_input.num_classes is None and not own_labels:
        model_input = replace(model_input, num_classes=num_classes)
    if spec == "fmnist":
        if split is not None:
            raise UsageError(f"fmnist has no splits to choose from: leave {split!r} out")
        refuse_class_map(spec, read)
        return _open_fmnist(model_input, images, batch_size)
    source = open_source(spec, model_input, split, read)
    warn_of_order(source.name, source.ambiguous)
    chosen: list[Any] | None = None
    unreadable: tuple[str, ...] = ()
    if source.count is not None:
        keys = list(source.keys)
        positions = spaced_positions(source.count, images)
        chosen, unreadable = readable_keys(source, [keys[i] for i in positions], model_input, read)

    def batches() -> Iterator[Batch]:
        if chosen is None:
            first = itertools.islice(source.keys, images)
            return transformed_batches(source.load, first, model_input, batch_size)
        kept = kept_batches(source, chosen, model_input, batch_size)
        return kept or transformed_batches(source.load, chosen, model_input, batch_size)

    return Data(
        name=source.name,
        images=None if chosen is None else len(chosen),
        num_classes=source.num_classes,
        unlabelled=source.unlabelled,
        batches=batches,
        labels=source.labels,
        unreadable=unreadable,
        content=None if chosen is None else content_hash(source, chosen),
    )


def spaced_positions(total: int, images: int | None) -> list[int]:
    """Positions of `images` evenly spaced items out of `total`; all of them if there are fewer."""
    count = min(total, images or total)
    return [i * total // count for i in range(count)]


def _open_fmnist(model_input: ModelInput, images: int | None, batch_size: int) -> Data:
    check_classes("fmnist", fmnist.CLASSES, model_input.num_classes)
    split = fmnist.test_split()
    positions = torch.tensor(spaced_positions(len(split), images))
    split = fmnist.LabelledImages(*split[positions])
    batches = partial(split_batches, split, model_input, batch_size)
    return Data("fmnist", len(split), fmnist.CLASSES, "", batches)

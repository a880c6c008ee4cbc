"""Images to evaluate a model on, preprocessed for it.

A data specification names them: `fmnist` (the embedded test split), `imagefolder:PATH`, or a data
set under the name that timm's `create_dataset` takes: `hfds/...`, `hfids/...`, `tfds/...`,
`wds/...`, `torch/...`. Nothing here may serve training or calibration: `vqzoo.data.training_data`
and `vqzoo.data.calibration_data` open images for those.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from vqzoo.data import fmnist
from vqzoo.data.batches import (
    BATCH_SIZE,
    Batch,
    Data,
    ModelInput,
    check_classes,
    input_of,
    split_batches,
    transformed_batches,
)
from vqzoo.data.sources import Source, open_source
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
) -> Data:
    """Open the images that `spec` names, preprocessed as timm evaluates `model`.

    Class folders count as the model's classes where their names say so: all of them are ImageNet
    synsets and the model is an ImageNet model, or all of them are among the model's own label
    names (either may be a subset of the classes). Otherwise they count as the model's classes in
    natural order, as in timm, where there are as many folders as classes. Any other folder of
    images is unlabelled.

    Args:
        spec: `fmnist`, `imagefolder:PATH`, or a data set under timm's name (`hfds/...`,
            `torch/...`).
        model: a timm model, or one that has its `pretrained_cfg` and `num_classes`.
        split: a split of one of timm's data sets, `validation` unless given.
        images: use at most this many, evenly spaced over the data set in its own order (the first
            images of a data set sorted by class all have one class); of a stream, the first ones.
        batch_size: images in a batch.
        own_labels: label images by the data's classes, whatever the model's, to compare images
            with one another. Class folders count as classes 0, 1, ... in natural order.

    Raises:
        UsageError: the specification, the split or `images` is invalid, or the data's classes are
            not the model's.
        VqzooError: the data is missing or cannot be read.
    """
    if images is not None and images < 1:
        raise UsageError(f"{images} images: choose at least 1")
    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size}: choose at least 1")
    model_input = input_of(model, own_labels)
    if spec == "fmnist":
        if split is not None:
            raise UsageError(f"fmnist has no splits to choose from: leave {split!r} out")
        return _open_fmnist(model_input, images, batch_size)
    source = open_source(spec, model_input, split)

    def batches() -> Iterator[Batch]:
        keys = _chosen_keys(source, images)
        return transformed_batches(source.load, keys, model_input, batch_size)

    count = None if source.count is None else len(spaced_positions(source.count, images))
    return Data(source.name, count, source.num_classes, source.unlabelled, batches)


def _chosen_keys(source: Source, images: int | None) -> Sequence[Any] | Iterator[Any]:
    if source.count is None:
        return itertools.islice(source.keys, images)
    keys = list(source.keys)
    return [keys[i] for i in spaced_positions(source.count, images)]


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

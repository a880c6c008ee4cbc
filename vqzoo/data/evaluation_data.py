"""Images to evaluate a model on, preprocessed for it.

A spec names them: `fmnist` (the embedded test split), `imagefolder:PATH`, or what timm's
`create_dataset` calls `hfds/...`, `hfids/...`, `tfds/...`, `wds/...`, `torch/...`. Nothing here is
for training: what trains or calibrates takes `vqzoo.data.fmnist.train_subset`, or the images of
`vqzoo.data.sources`.
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
    """Open what `spec` names, preprocessed as timm evaluates `model` (`resolve_model_data_config`).

    Args:
        spec: `fmnist`, `imagefolder:PATH`, or a data set by timm's name (`hfds/...`, `torch/...`).
        model: a timm model, or one with its `pretrained_cfg` and `num_classes`.
        split: for timm's data sets, `validation` unless given.
        images: at most this many, evenly spaced over the data set in its own order, since the
            first ones of a class-sorted set are all of one class; of a stream, the first ones.
        batch_size: images in a batch.
        own_labels: label images by the data's own classes, whatever the model's: for what compares
            images with one another. Class folders then count as classes 0, 1, ... in natural order.

    Class folders count as this model's classes where their names are: all ImageNet synsets known
    to an ImageNet model, or all among the model's own label names (a subset of the classes is
    fine then); else where there are as many folders as classes, in natural order, as timm has it.
    Any other folder of images is unlabelled.

    Raises:
        UsageError: the spec, the split or `images` makes no sense, or the classes are others.
        VqzooError: the data cannot be had or read.
    """
    if images is not None and images < 1:
        raise UsageError(f"{images} images: at least 1")
    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size}")
    wanted = input_of(model, own_labels)
    if spec == "fmnist":
        if split is not None:
            raise UsageError(f"fmnist has no splits to choose from: leave {split!r} out")
        return _open_fmnist(wanted, images, batch_size)
    source = open_source(spec, wanted, split)

    def batches() -> Iterator[Batch]:
        return transformed_batches(source.load, _chosen(source, images), wanted, batch_size)

    count = None if source.count is None else len(_spaced(source.count, images))
    return Data(source.name, count, source.num_classes, source.unlabelled, batches)


def _chosen(source: Source, images: int | None) -> Sequence[Any] | Iterator[Any]:
    if source.count is None:
        return itertools.islice(source.keys, images)
    keys = list(source.keys)
    return [keys[i] for i in _spaced(source.count, images)]


def _spaced(total: int, images: int | None) -> list[int]:
    """Positions of `images` evenly spaced ones out of `total`; all where there are no more."""
    wanted = min(total, images or total)
    return [i * total // wanted for i in range(wanted)]


def _open_fmnist(wanted: ModelInput, images: int | None, batch_size: int) -> Data:
    check_classes("fmnist", fmnist.CLASSES, wanted.num_classes)
    split = fmnist.test_split()
    chosen = torch.tensor(_spaced(len(split), images))
    split = fmnist.LabelledImages(*split[chosen])
    make = partial(split_batches, split, wanted, batch_size)
    return Data("fmnist", len(split), fmnist.CLASSES, "", make)

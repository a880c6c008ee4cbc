"""Images to calibrate and repair a network with: training images, unlabelled and not augmented."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vqzoo.data import fmnist
from vqzoo.data.batches import (
    Batch,
    Data,
    check_classes,
    split_batches,
    transformed_batches,
)
from vqzoo.data.kept_batches import MEMORY, KeptBatches, copy_batch
from vqzoo.data.kept_pixels import kept_batches
from vqzoo.data.model_input import ModelInput, input_of
from vqzoo.data.seeds import epoch_generator
from vqzoo.data.sources import READ_ALL, ReadOptions, Source, open_training_source, readable_keys
from vqzoo.data.training_data import as_batch, draw_keys
from vqzoo.errors import UsageError

CALIBRATION_IMAGES = 512
BATCH_SIZE = 64


def open_calibration_data(
    spec: str,
    model: nn.Module,
    *,
    images: int = CALIBRATION_IMAGES,
    seed: int = 0,
    memory: int = MEMORY,
    skip_unreadable: bool = False,
) -> Data:
    """Open images to calibrate or repair `model` with, preprocessed as for evaluation.

    Preprocessed images stay in memory for the next pass, up to a bound.

    Args:
        spec: `fmnist` (the 5,000 embedded training images), `fmnist:FOLDER` (the training split
            from the IDX files in FOLDER), `imagefolder:PATH`, or a data set under timm's name (its
            split `train`).
        model: a timm model, or one that has its `pretrained_cfg` and `num_classes`.
        images: use at most this many: of fmnist the first ones, else as `seed` draws them.
        seed: the order of the images, and which of a folder or data set are used.
        memory: bytes of preprocessed images to keep.
        skip_unreadable: leave out images that cannot be read, instead of failing.

    Returns:
        Batches of 64 images.

    Raises:
        UsageError: the specification is invalid, or the data's classes are not the model's.
        VqzooError: the data is missing or cannot be read.
    """
    model_input = input_of(model)
    if spec.partition(":")[0] == "fmnist":
        return _open_fmnist(spec, model_input, images, seed, memory)
    read = ReadOptions(skip_unreadable=skip_unreadable)
    source = open_training_source(spec, model_input, read)
    return _open_source(source, model_input, images, seed, memory, read)


def open_held_out(
    spec: str,
    model: nn.Module,
    *,
    images: int = CALIBRATION_IMAGES,
    held_out: int,
    seed: int = 0,
    memory: int = MEMORY,
    read: ReadOptions = READ_ALL,
) -> tuple[Data, Data]:
    """Open images to calibrate `model` with, and others of the same data to judge the result by.

    Those of fmnist are the first ones, and the ones behind them. Where there are fewer than both
    numbers together, a quarter of all images is held out at least.

    Args:
        spec: as `open_calibration_data` takes it, like the arguments that follow.
        model: as there.
        images: calibrate with at most this many.
        held_out: hold out at most this many.
        seed: as there.
        memory: bytes of preprocessed images to keep of either part.
        read: how to read images and their labels.

    Returns:
        Images to calibrate with, and images held out; both have labels where the data has.

    Raises:
        UsageError: as `open_calibration_data`, and where there are fewer than four images.
        VqzooError: as `open_calibration_data`.
    """
    model_input = input_of(model)
    if spec.partition(":")[0] == "fmnist":
        check_classes("fmnist", fmnist.CLASSES, model_input.num_classes)
        split = _fmnist_split(spec)
        first, second = _parts(len(split), images, held_out)
        behind = slice(first, first + second)
        return (
            _fmnist_data(split[:first], model_input, seed, memory, "training images"),
            _fmnist_data(split[behind], model_input, seed, memory, "held-out training images"),
        )
    source = open_training_source(spec, model_input, read)
    keys, _ = draw_keys(source, seed, hold_out=False)
    keys, unreadable = readable_keys(source, keys[: images + held_out], model_input, read)
    first, second = _parts(len(keys), images, held_out)
    calibration = _source_data(source, keys[:first], model_input, seed, memory)
    judging = _source_data(source, keys[first : first + second], model_input, seed, memory)
    return replace(calibration, unreadable=unreadable), judging


def _parts(count: int, images: int, held_out: int) -> tuple[int, int]:
    """How many of `count` images to calibrate with, and how many of the others to hold out."""
    if count < 4:
        raise UsageError(f"{count} calibration images are too few to hold some out: give 4 or more")
    second = min(held_out, max(count - images, count // 4))
    return min(images, count - second), second


def collect_calibration_data(batches: Iterable[Any], images: int = CALIBRATION_IMAGES) -> Data:
    """The first images of preprocessed batches, read once and held in memory.

    Args:
        batches: batches of images (float, B x C x H x W), or pairs of images and labels, such as a
            `torch.utils.data.DataLoader` gives; or a tensor, which is one batch.
        images: use at most this many.

    Raises:
        UsageError: there are no images.
    """
    collected: list[Batch] = []
    missing = images
    for batch in map(as_batch, [batches] if isinstance(batches, Tensor) else batches):
        chosen = batch.images[:missing]
        if len(chosen):
            collected.append(Batch(chosen, None))
        missing -= len(chosen)
        if not missing:
            break
    if not collected:
        raise UsageError("there are no images to calibrate with: the batches are empty")
    return Data("the images given", images - missing, None, "", lambda: map(copy_batch, collected))


def _open_fmnist(spec: str, model_input: ModelInput, images: int, seed: int, memory: int) -> Data:
    check_classes("fmnist", fmnist.CLASSES, model_input.num_classes)
    chosen = _fmnist_split(spec)[:images]
    return _fmnist_data(chosen, model_input, seed, memory, "training images")


def _fmnist_split(spec: str) -> fmnist.LabelledImages:
    folder = fmnist.training_folder(spec)
    return fmnist.train_subset() if folder is None else fmnist.train_split(folder)


def _fmnist_data(
    chosen: tuple[Tensor, Tensor], model_input: ModelInput, seed: int, memory: int, what: str
) -> Data:
    images = fmnist.LabelledImages(*chosen)
    shuffled = fmnist.LabelledImages(*images[_order(len(images), seed)])

    def prepare(position: int) -> Iterator[Batch]:
        rest = fmnist.LabelledImages(*shuffled[position * BATCH_SIZE :])
        return split_batches(rest, model_input, BATCH_SIZE)

    name = f"fmnist, {len(shuffled):,} {what}"
    return Data(name, len(shuffled), fmnist.CLASSES, "", KeptBatches(prepare, memory))


def _open_source(
    source: Source,
    model_input: ModelInput,
    images: int,
    seed: int,
    memory: int,
    read: ReadOptions,
) -> Data:
    keys, _ = draw_keys(source, seed, hold_out=False)
    keys, unreadable = readable_keys(source, keys[:images], model_input, read)
    data = _source_data(source, keys, model_input, seed, memory)
    return replace(data, unreadable=unreadable)


def _source_data(
    source: Source, keys: Sequence[Any], model_input: ModelInput, seed: int, memory: int
) -> Data:
    shuffled = [keys[i] for i in _order(len(keys), seed).tolist()]

    def prepare(position: int) -> Iterator[Batch]:
        rest = shuffled[position * BATCH_SIZE :]
        kept = kept_batches(source, rest, model_input, BATCH_SIZE) if position == 0 else None
        return kept or transformed_batches(source.load, rest, model_input, BATCH_SIZE)

    return Data(
        name=source.name,
        images=len(shuffled),
        num_classes=source.num_classes,
        unlabelled=source.unlabelled,
        batches=KeptBatches(prepare, memory),
    )


def _order(count: int, seed: int) -> torch.Tensor:
    """The order of the images, that of a first epoch: (count,) int64."""
    return torch.randperm(count, generator=epoch_generator(seed, 0))

"""Images to learn from, and those held out of them to validate on. Never a test split."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.data import create_transform
from torch import Tensor, nn

from vqzoo.data import fmnist
from vqzoo.data.augment import augment
from vqzoo.data.batches import (
    BATCH_SIZE,
    Batch,
    Data,
    Loader,
    ModelInput,
    check_classes,
    input_of,
    split_batches,
    transformed_batches,
)
from vqzoo.data.image_modes import to_eight_bits
from vqzoo.data.sources import Source, open_source
from vqzoo.errors import UsageError, VqzooError
from vqzoo.finetuning.settings import Finetuning

FMNIST_VALIDATION = 1_000  # of the 5,000 embedded training images
FMNIST_PADDING = 2  # pixels that a training image is shifted by, at most
HELD_OUT_SHARE = 10  # one in so many images of a folder


@dataclass(frozen=True)
class TrainingData:
    """Images for one student.

    Attributes:
        name: fit for a report, never a local path.
        images: how many there are to learn from, None where unknown.
        labelled: whether they have labels that are the model's classes.
        batches: takes the generator that an epoch's order and augmentation are drawn from.
        validation: held-out images, preprocessed as they are for evaluation; None without any.
    """

    name: str
    images: int | None
    labelled: bool
    batches: Callable[[torch.Generator], Iterator[Batch]]
    validation: Data | None


def open_training_data(
    spec: str, model: nn.Module, settings: Finetuning, *, seed: int = 0, hold_out: bool = True
) -> TrainingData:
    """Open what `spec` names, preprocessed for `model`.

    Args:
        spec: `fmnist`: 4,000 of the embedded training images, validated on the other 1,000.
            `fmnist:FOLDER`: the training split's IDX files in FOLDER without the 5,000 embedded
            images, validated on those. `imagefolder:PATH`: one in ten of each class folder (of all,
            without class folders), drawn by `seed`, is held out. A data set by timm's name: its
            split `train`, one in ten held out.
        model: a timm model, or one with its `pretrained_cfg` and `num_classes`.
        settings: batch size, augmentation, and how many images to learn from.
        seed: which images are held out.
        hold_out: whether any are; else all that `spec` names are to learn from.

    Raises:
        UsageError: the spec makes no sense, or the classes are others.
        VqzooError: the data cannot be had or read, or has too few images.
    """
    kind, colon, rest = spec.partition(":")
    if kind == "fmnist":
        folder = Path(rest).expanduser() if colon else None
        return _open_fmnist(folder, input_of(model), settings, hold_out)
    wanted = input_of(model)
    source = open_source(spec, wanted, None if kind == "imagefolder" else "train")
    if source.count is None:
        raise UsageError(f"{spec} is a stream, which has no order to shuffle: choose another kind")
    return _open_source(source, wanted, settings, seed, hold_out)


def given_batches(batches: Iterable[Any], validation: Data | None = None) -> TrainingData:
    """What a `torch.utils.data.DataLoader` (or a list) gives each time it is iterated: batches of
    images, or pairs of images and labels, preprocessed already.
    """

    def convert(generator: torch.Generator) -> Iterator[Batch]:
        for batch in batches:
            if isinstance(batch, Tensor):
                yield Batch(batch, None)
            else:
                images, labels = batch
                yield Batch(images, labels)

    return TrainingData("the images given", None, False, convert, validation)


def _open_fmnist(
    folder: Path | None, wanted: ModelInput, settings: Finetuning, hold_out: bool
) -> TrainingData:
    check_classes("fmnist", fmnist.CLASSES, wanted.num_classes)
    training, held_out = _fmnist_images(folder, hold_out)
    training = fmnist.LabelledImages(*training[: settings.images])
    name = f"fmnist, {len(training):,} training images"
    validation = None
    if held_out is not None:
        validation = Data(
            f"fmnist, {len(held_out):,} other training images",
            len(held_out),
            fmnist.CLASSES,
            "",
            partial(split_batches, held_out, wanted, BATCH_SIZE),
        )

    def batches(generator: torch.Generator) -> Iterator[Batch]:
        order = torch.randperm(len(training), generator=generator)
        for chosen in order.split(settings.batch_size):
            images, labels = training[chosen]
            if settings.augment:
                images = augment(images, FMNIST_PADDING, generator)
            split = fmnist.LabelledImages(images, labels)
            yield from split_batches(split, wanted, settings.batch_size)

    return TrainingData(name, len(training), True, batches, validation)


def _fmnist_images(
    folder: Path | None, hold_out: bool
) -> tuple[fmnist.LabelledImages, fmnist.LabelledImages | None]:
    """Images to learn from, and those held out of them, if any are to be."""
    embedded = fmnist.train_subset()
    if not hold_out:
        return (embedded if folder is None else fmnist.train_split(folder)), None
    if folder is None:
        cut = len(embedded) - FMNIST_VALIDATION
        return fmnist.LabelledImages(*embedded[:cut]), fmnist.LabelledImages(*embedded[cut:])
    everything = fmnist.train_split(folder)
    kept = torch.ones(len(everything), dtype=torch.bool)
    kept[fmnist.held_out_indices(everything.labels)] = False
    return fmnist.LabelledImages(*everything[kept]), embedded


def _open_source(
    source: Source, wanted: ModelInput, settings: Finetuning, seed: int, hold_out: bool
) -> TrainingData:
    keys, held_out = _drawn(source, seed, hold_out)
    if settings.images is not None:
        keys = keys[: settings.images]
    if not keys or (hold_out and not held_out):
        raise VqzooError(f"{source.name} has too few images to learn from and to validate on")
    validation = None
    if held_out:
        evaluate = partial(transformed_batches, source.load, held_out, wanted, BATCH_SIZE)
        validation = Data(
            source.name, len(held_out), source.num_classes, source.unlabelled, evaluate
        )

    def batches(generator: torch.Generator) -> Iterator[Batch]:
        order = torch.randperm(len(keys), generator=generator).tolist()
        shuffled = [keys[i] for i in order]
        if settings.augment:
            return _augmented_batches(source.load, shuffled, wanted, settings.batch_size, generator)
        return transformed_batches(source.load, shuffled, wanted, settings.batch_size)

    labelled = not source.unlabelled
    return TrainingData(source.name, len(keys), labelled, batches, validation)


def _drawn(source: Source, seed: int, hold_out: bool) -> tuple[list[Any], list[Any]]:
    """Keys to learn from, in random order, and keys to validate on: one in ten of each group, or
    none."""
    generator = torch.Generator().manual_seed(seed)
    groups: dict[str, list[Any]] = {}
    for key in source.keys:
        groups.setdefault(source.group(key), []).append(key)
    training: list[Any] = []
    held_out: list[Any] = []
    for keys in groups.values():
        order = torch.randperm(len(keys), generator=generator).tolist()
        share = max(1, len(keys) // HELD_OUT_SHARE) if hold_out else 0
        held_out += [keys[i] for i in sorted(order[:share])]
        training += [keys[i] for i in order[share:]]
    mixed = torch.randperm(len(training), generator=generator).tolist()
    return [training[i] for i in mixed], held_out


def _augmented_batches(
    load: Loader,
    keys: Sequence[Any],
    wanted: ModelInput,
    batch_size: int,
    generator: torch.Generator,
) -> Iterator[Batch]:
    """Images as timm's training transform crops and mirrors them.

    They are read on a few threads; the transform, which draws from global random states, runs on
    the caller's alone.
    """
    transform = create_transform(**wanted.config, is_training=True, color_jitter=None)
    with ThreadPoolExecutor(min(8, torch.get_num_threads())) as pool:
        for start in range(0, len(keys), batch_size):
            samples = list(pool.map(load, keys[start : start + batch_size]))
            with _seeded(generator):
                images = [transform(to_eight_bits(image, wanted.mode)) for image, _ in samples]
            labels = [label for _, label in samples if label is not None]
            yield Batch(torch.stack(images), torch.tensor(labels) if labels else None)


@contextmanager
def _seeded(generator: torch.Generator) -> Iterator[None]:
    """The global random states of Python and torch, drawn from `generator` and put back."""
    seed = int(torch.randint(2**31, (), generator=generator))
    state = random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(state)

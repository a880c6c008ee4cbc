"""Images to fine-tune with, and images held out of them for validation. Never a test split."""

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
from vqzoo.data.augment import augment as augment_images
from vqzoo.data.batches import (
    BATCH_SIZE,
    Batch,
    Data,
    Loader,
    check_classes,
    split_batches,
    transformed_batches,
)
from vqzoo.data.class_folders import warn_of_order
from vqzoo.data.image_modes import to_eight_bits
from vqzoo.data.model_input import ModelInput, input_of
from vqzoo.data.sources import (
    READ_ALL,
    ReadOptions,
    Source,
    open_training_source,
    readable_keys,
    refuse_class_map,
)
from vqzoo.errors import VqzooError

FMNIST_VALIDATION = 1_000  # of the 5,000 embedded training images
FMNIST_PADDING = 2  # largest shift of an augmented image, in pixels
HELD_OUT_SHARE = 10  # one in so many images of a class folder is held out
SINGLE_SHARE = 5  # one in so many images that are alone in their class folders


@dataclass(frozen=True)
class TrainingData:
    """Images to train one model with.

    Attributes:
        name: fit for a report, never a local path.
        images: number of training images, None where unknown.
        labelled: whether they have labels that are the model's classes.
        batches: starts an epoch; takes the generator of its order and augmentation.
        validation: held-out images, preprocessed as for evaluation; None if there are none.
        labels: how class folders became labels, for the user; empty for other data.
        unreadable: names of the images that are left out because they cannot be read.
    """

    name: str
    images: int | None
    labelled: bool
    batches: Callable[[torch.Generator], Iterator[Batch]]
    validation: Data | None
    labels: str = ""
    unreadable: tuple[str, ...] = ()


def open_training_data(
    spec: str,
    model: nn.Module,
    *,
    batch_size: int = 64,
    augment: bool = True,
    images: int | None = None,
    seed: int = 0,
    read: ReadOptions = READ_ALL,
) -> TrainingData:
    """Open the images that `spec` names, preprocessed for `model`.

    Args:
        spec: `fmnist`: 4,000 of the embedded training images; the other 1,000 are for validation.
            `fmnist:FOLDER`: the training split from the IDX files in FOLDER, without the 5,000
            embedded images; those are for validation. `imagefolder:PATH`, or a data set under
            timm's name (its split `train`): one in ten images of each class folder (of all images,
            where there are no class folders) is held out for validation; one in five of images that
            are alone in their class folders.
        model: a timm model, or one that has its `pretrained_cfg` and `num_classes`.
        batch_size: training images in a batch.
        augment: shift and mirror training images (fmnist), or crop and mirror them as timm does.
        images: use at most this many training images.
        seed: which images are held out, and which `images` are used, of a folder or data set.
        read: the class map, and what happens with images that cannot be read.

    Raises:
        UsageError: the specification is invalid, or the data's classes are not the model's.
        VqzooError: the data is missing, cannot be read, or has too few images.
    """
    model_input = input_of(model)
    if spec.partition(":")[0] == "fmnist":
        refuse_class_map(spec, read)
        folder = fmnist.training_folder(spec)
        return _open_fmnist(folder, model_input, batch_size, augment, images)
    source = open_training_source(spec, model_input, read)
    warn_of_order(source.name, source.ambiguous)
    return _open_source(source, model_input, batch_size, augment, images, seed, read)


def given_batches(batches: Iterable[Any], validation: Data | None = None) -> TrainingData:
    """Training data from preprocessed batches: a `torch.utils.data.DataLoader`, or a list.

    Args:
        batches: iterated once an epoch; gives batches of images, or pairs of images and labels.
        validation: held-out images.
    """

    def convert(generator: torch.Generator) -> Iterator[Batch]:
        return map(as_batch, batches)

    return TrainingData("the images given", None, False, convert, validation)


def as_batch(batch: Any) -> Batch:
    """A batch of images (a tensor), or a pair of images and labels, as a `Batch`."""
    if isinstance(batch, Tensor):
        return Batch(batch, None)
    images, labels = batch
    return Batch(images, labels)


def _open_fmnist(
    folder: Path | None,
    model_input: ModelInput,
    batch_size: int,
    augment: bool,
    images: int | None,
) -> TrainingData:
    check_classes("fmnist", fmnist.CLASSES, model_input.num_classes)
    training, held_out = _split_fmnist(folder)
    training = fmnist.LabelledImages(*training[:images])
    validation = Data(
        f"fmnist, {len(held_out):,} other training images",
        len(held_out),
        fmnist.CLASSES,
        "",
        partial(split_batches, held_out, model_input, BATCH_SIZE),
    )

    def batches(generator: torch.Generator) -> Iterator[Batch]:
        order = torch.randperm(len(training), generator=generator)
        for chosen in order.split(batch_size):
            pixels, labels = training[chosen]
            if augment:
                pixels = augment_images(pixels, FMNIST_PADDING, generator)
            split = fmnist.LabelledImages(pixels, labels)
            yield from split_batches(split, model_input, batch_size)

    name = f"fmnist, {len(training):,} training images"
    return TrainingData(name, len(training), True, batches, validation)


def _split_fmnist(folder: Path | None) -> tuple[fmnist.LabelledImages, fmnist.LabelledImages]:
    """Images to train with, and images held out for validation."""
    embedded = fmnist.train_subset()
    if folder is None:
        cut = len(embedded) - FMNIST_VALIDATION
        return fmnist.LabelledImages(*embedded[:cut]), fmnist.LabelledImages(*embedded[cut:])
    everything = fmnist.train_split(folder)
    kept = torch.ones(len(everything), dtype=torch.bool)
    kept[fmnist.held_out_indices(everything.labels)] = False
    return fmnist.LabelledImages(*everything[kept]), embedded


def _open_source(
    source: Source,
    model_input: ModelInput,
    batch_size: int,
    augment: bool,
    images: int | None,
    seed: int,
    read: ReadOptions,
) -> TrainingData:
    keys, held_out = draw_keys(source, seed, hold_out=True)
    if not keys or not held_out:
        count = len(keys) + len(held_out)
        raise VqzooError(
            f"{source.name} has too few images to train with and to validate on: {count}; give 2 "
            "or more"
        )
    keys, lost = readable_keys(source, keys[:images], model_input, read)
    held_out, lost_of_held_out = readable_keys(source, held_out, model_input, read)
    validate = partial(transformed_batches, source.load, held_out, model_input, BATCH_SIZE)
    validation = Data(source.name, len(held_out), source.num_classes, source.unlabelled, validate)

    def batches(generator: torch.Generator) -> Iterator[Batch]:
        order = torch.randperm(len(keys), generator=generator).tolist()
        shuffled = [keys[i] for i in order]
        if augment:
            return _augmented_batches(source.load, shuffled, model_input, batch_size, generator)
        return transformed_batches(source.load, shuffled, model_input, batch_size)

    return TrainingData(
        name=source.name,
        images=len(keys),
        labelled=not source.unlabelled,
        batches=batches,
        validation=validation,
        labels=source.labels,
        unreadable=tuple(sorted(lost + lost_of_held_out)),
    )


def draw_keys(source: Source, seed: int, *, hold_out: bool) -> tuple[list[Any], list[Any]]:
    """The keys of a source in random order, and keys held out of them.

    Args:
        source: no stream.
        seed: of the order, and of what is held out.
        hold_out: hold out one in ten keys of each class folder, and one in five of those that are
            alone in theirs; none otherwise.
    """
    generator = torch.Generator().manual_seed(seed)
    groups: dict[str, list[Any]] = {}
    for key in source.keys:
        groups.setdefault(source.group(key), []).append(key)
    parts = [(keys, HELD_OUT_SHARE) for keys in groups.values()]
    if hold_out and (single := [keys[0] for keys in groups.values() if len(keys) == 1]):
        parts = [part for part in parts if len(part[0]) > 1] + [(single, SINGLE_SHARE)]
    remaining: list[Any] = []
    held_out: list[Any] = []
    for keys, one_in in parts:
        order = torch.randperm(len(keys), generator=generator).tolist()
        share = max(1, len(keys) // one_in) if hold_out else 0
        held_out += [keys[i] for i in sorted(order[:share])]
        remaining += [keys[i] for i in order[share:]]
    shuffled = torch.randperm(len(remaining), generator=generator).tolist()
    return [remaining[i] for i in shuffled], held_out


def _augmented_batches(
    load: Loader,
    keys: Sequence[Any],
    model_input: ModelInput,
    batch_size: int,
    generator: torch.Generator,
) -> Iterator[Batch]:
    """Images as timm's training transform crops and mirrors them.

    A few threads read the images. The transform draws from global random states, so it runs on the
    calling thread alone.
    """
    transform = create_transform(**model_input.config, is_training=True, color_jitter=None)
    with ThreadPoolExecutor(min(8, torch.get_num_threads())) as pool:
        for start in range(0, len(keys), batch_size):
            samples = list(pool.map(load, keys[start : start + batch_size]))
            with _seeded(generator):
                images = [transform(to_eight_bits(image, model_input.mode)) for image, _ in samples]
            labels = [label for _, label in samples if label is not None]
            yield Batch(torch.stack(images), torch.tensor(labels) if labels else None)


@contextmanager
def _seeded(generator: torch.Generator) -> Iterator[None]:
    """Seed the global random states of Python and torch from `generator`; restore them after."""
    seed = int(torch.randint(2**31, (), generator=generator))
    state = random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(state)

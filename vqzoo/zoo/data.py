"""Images to evaluate a model on, preprocessed for it.

A spec names them: `fmnist` (the embedded test split), `imagefolder:PATH`, or what timm's
`create_dataset` calls `hfds/...`, `hfids/...`, `tfds/...`, `wds/...`, `torch/...`. Nothing here is
for training: what trains or calibrates takes `vqzoo.zoo.fmnist.train_subset`.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from PIL import Image, UnidentifiedImageError
from timm.data import (
    ImageDataset,
    ImageNetInfo,
    IterableImageDataset,
    create_dataset,
    create_transform,
    get_img_extensions,
    infer_imagenet_subset,
    resolve_model_data_config,
)
from timm.utils.misc import natural_key
from torch import Tensor, nn

from vqzoo.errors import UsageError, VqzooError
from vqzoo.zoo import fmnist

BATCH_SIZE = 250

# The package behind each of timm's kinds of data set.
PACKAGES = {
    "torch": "torchvision",
    "hfds": "datasets",
    "hfids": "datasets",
    "tfds": "tensorflow_datasets",
    "wds": "webdataset",
}


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
        """Whether every batch has labels that are this model's classes."""
        return not self.unlabelled

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()


@dataclass(frozen=True)
class _Input:
    """What a model wants: timm's data config, and its number of classes (None where unknown)."""

    config: dict[str, Any]
    num_classes: int | None
    label_names: tuple[str, ...]

    @property
    def mode(self) -> str:
        """PIL's mode with the model's number of channels."""
        return "L" if self.config["input_size"][0] == 1 else "RGB"


def open_data(
    spec: str,
    model: nn.Module,
    *,
    split: str | None = None,
    images: int | None = None,
    batch_size: int = BATCH_SIZE,
) -> Data:
    """Open what `spec` names, preprocessed as timm evaluates `model` (`resolve_model_data_config`).

    Args:
        spec: `fmnist`, `imagefolder:PATH`, or a data set by timm's name (`hfds/...`, `torch/...`).
        model: a timm model, or one with its `pretrained_cfg` and `num_classes`.
        split: for timm's data sets, `validation` unless given.
        images: at most this many, evenly spaced over the data set in its own order, since the
            first ones of a class-sorted set are all of one class; of a stream, the first ones.
        batch_size: images in a batch.

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
    wanted = _input_of(model)
    kind, _, rest = spec.partition(":")
    if spec == "fmnist" or kind == "imagefolder":
        if split is not None:
            raise UsageError(f"{kind} has no splits to choose from: leave {split!r} out")
        if spec == "fmnist":
            return _open_fmnist(wanted, images, batch_size)
        return _open_folder(Path(rest).expanduser(), wanted, images, batch_size)
    prefix = spec.partition("/")[0].lower()
    if "/" in spec and prefix in PACKAGES:
        return _open_timm(spec, prefix, split or "validation", wanted, images, batch_size)
    raise UsageError(
        f"unknown data {spec!r}: fmnist, imagefolder:PATH, or a data set by timm's name such as "
        "hfds/NAME or torch/NAME"
    )


def _input_of(model: nn.Module) -> _Input:
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
    return _Input(config, getattr(model, "num_classes", None), tuple(cfg.get("label_names") or ()))


def _check_classes(name: str, found: int | None, wanted: int | None) -> None:
    if found is not None and wanted is not None and found != wanted:
        raise UsageError(
            f"{name} has {found} classes, the model {wanted}: choose data that the model knows, "
            "or a folder of images for agreement with the dense model"
        )


def _spaced(total: int, images: int | None) -> list[int]:
    """Positions of `images` evenly spaced ones out of `total`; all where there are no more."""
    wanted = min(total, images or total)
    return [i * total // wanted for i in range(wanted)]


def _open_fmnist(wanted: _Input, images: int | None, batch_size: int) -> Data:
    _check_classes("fmnist", fmnist.CLASSES, wanted.num_classes)
    split = fmnist.test_split()
    chosen = torch.tensor(_spaced(len(split), images))
    split = fmnist.LabelledImages(*split[chosen])
    if wanted.config["input_size"] == (1, 28, 28) and wanted.config["crop_pct"] == 1.0:
        make = partial(_normalized_batches, split, wanted, batch_size)
    else:
        load = partial(_fmnist_image, split)
        make = partial(_transformed_batches, load, range(len(split)), wanted, batch_size)
    return Data("fmnist", len(split), fmnist.CLASSES, "", make)


def _normalized_batches(
    split: fmnist.LabelledImages, wanted: _Input, batch_size: int
) -> Iterator[Batch]:
    """What timm's transform does where nothing is resized or cropped, a batch at a time."""
    mean, std = (torch.tensor(wanted.config[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    for start in range(0, len(split), batch_size):
        images, labels = split[start : start + batch_size]
        yield Batch(images.float().div_(255).sub_(mean).div_(std), labels)


def _fmnist_image(split: fmnist.LabelledImages, index: int) -> tuple[Image.Image, int]:
    image, label = split[index]
    return Image.fromarray(image.squeeze(0).numpy()), int(label)


def _transformed_batches(
    load: Callable[[Any], tuple[Image.Image, int | None]],
    keys: Iterable[Any],
    wanted: _Input,
    batch_size: int,
) -> Iterator[Batch]:
    """Load and transform on a few threads, one batch ahead of the caller, in the order of `keys`.

    `load` gives an image and its label, None for images without; all or none have one.
    """
    transform = create_transform(**wanted.config, is_training=False)

    def sample(key: Any) -> tuple[Tensor, int | None]:
        image, label = load(key)
        return transform(image.convert(wanted.mode)), label

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


def _open_folder(folder: Path, wanted: _Input, images: int | None, batch_size: int) -> Data:
    name = f"imagefolder:{folder.resolve().name}"
    try:
        classes, found = _scan(folder)
    except OSError as error:
        raise VqzooError(f"{folder} cannot be read: {error.strerror}") from error
    if not found:
        kinds = ", ".join(sorted(get_img_extensions()))
        raise VqzooError(f"{folder} has no images ({kinds}) in it or in its folders")
    labels, unlabelled = _labels(classes, found, wanted)
    chosen = [found[i] for i in _spaced(len(found), images)]
    load = partial(_folder_image, labels)
    make = partial(_transformed_batches, load, chosen, wanted, batch_size)
    return Data(name, len(chosen), len(classes) or None, unlabelled, make)


class _Found(NamedTuple):
    """An image file and the folder under the root that it is in, empty for the root itself."""

    path: Path
    folder: str


def _scan(root: Path) -> tuple[list[str], list[_Found]]:
    """The folders of `root`, in natural order, and all image files under it, sorted.

    Hidden files and folders don't count; links are followed.

    Raises:
        OSError: `root` is missing, no folder, or not readable.
    """
    entries = [entry for entry in root.iterdir() if not entry.name.startswith(".")]
    classes = sorted((entry.name for entry in entries if entry.is_dir()), key=natural_key)
    extensions = get_img_extensions(as_set=True)
    found = [
        _Found(entry, "") for entry in entries if entry.is_file() and _ending(entry) in extensions
    ]
    for name in classes:
        for where, folders, files in os.walk(root / name, followlinks=True):
            folders[:] = [f for f in folders if not f.startswith(".")]
            paths = [Path(where, f) for f in files if not f.startswith(".")]
            found += [_Found(path, name) for path in paths if _ending(path) in extensions]
    return classes, sorted(found, key=lambda image: natural_key(str(image.path)))


def _ending(path: Path) -> str:
    return path.suffix.lower()


def _labels(
    classes: list[str], found: list[_Found], wanted: _Input
) -> tuple[dict[str, int] | None, str]:
    """Class folder -> class of the model, or None with the reason why there are no labels."""
    if not classes:
        return None, "the folder has no class folders"
    if any(not image.folder for image in found):
        return None, "some images lie outside the class folders"
    for names in _known_names(wanted):
        if set(classes) <= set(names):
            return {name: names.index(name) for name in classes}, ""
    if len(classes) == wanted.num_classes:
        return {name: index for index, name in enumerate(classes)}, ""
    return None, f"{len(classes)} class folders, but the model has {wanted.num_classes} classes"


def _known_names(wanted: _Input) -> Iterator[list[str]]:
    subset = infer_imagenet_subset({"num_classes": wanted.num_classes})
    if subset is not None:
        yield ImageNetInfo(subset).label_names()
    if len(wanted.label_names) == wanted.num_classes:
        yield list(wanted.label_names)


def _folder_image(labels: dict[str, int] | None, image: _Found) -> tuple[Image.Image, int | None]:
    opened = _open_image(image.path, str(image.path))
    return opened, None if labels is None else labels[image.folder]


def _open_image(file: Path | IO[bytes], name: str) -> Image.Image:
    try:
        with Image.open(file) as opened:
            opened.load()
    except UnidentifiedImageError as error:
        raise VqzooError(f"{name} cannot be read: not an image of a known kind") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise VqzooError(f"{name} cannot be read: {_first_line(error)}") from error
    return opened


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _open_timm(
    spec: str, prefix: str, split: str, wanted: _Input, images: int | None, batch_size: int
) -> Data:
    package = PACKAGES[prefix]
    if importlib.util.find_spec(package) is None:
        raise VqzooError(f"{spec} needs the package {package}: pip install {package}")
    # torchvision's data sets must be told where to go; the others have caches of their own.
    where = {"root": str(Path(torch.hub.get_dir()) / "datasets")} if prefix == "torch" else {}
    try:
        dataset = create_dataset(
            spec, split=split, input_img_mode=wanted.mode, download=prefix == "torch", **where
        )
    except (ImportError, OSError, RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise VqzooError(
            f"{spec}, split {split!r}, cannot be opened: {_first_line(error)}"
        ) from error
    classes = _count_classes(dataset)
    _check_classes(spec, classes, wanted.num_classes)
    if isinstance(dataset, IterableImageDataset):

        def stream() -> Iterator[Batch]:
            items = itertools.islice(dataset, images)
            return _transformed_batches(_known_label, items, wanted, batch_size)

        return Data(spec, None, classes, "", stream)
    keys = _spaced(len(dataset), images)
    if not keys:
        raise VqzooError(f"{spec}, split {split!r}, has no images")
    load = partial(_timm_image, spec, dataset)
    unlabelled = "its images have no labels" if load(0)[1] is None else ""
    make = partial(_transformed_batches, load, keys, wanted, batch_size)
    return Data(spec, len(keys), classes, unlabelled, make)


def _count_classes(dataset: Any) -> int | None:
    classes = getattr(dataset, "classes", None)
    if classes is None:
        classes = getattr(getattr(dataset, "reader", None), "class_to_idx", None)
    return len(classes) if classes else None


def _timm_image(spec: str, dataset: Any, index: int) -> tuple[Image.Image, int | None]:
    if not isinstance(dataset, ImageDataset):
        return _known_label(dataset[index])
    # timm's own __getitem__ puts the next image in an unreadable one's place.
    file, label = dataset.reader[index]
    return _known_label((_open_image(file, f"{spec}, image {index}"), label))


def _known_label(item: tuple[Image.Image, int | None]) -> tuple[Image.Image, int | None]:
    """-1 is what the test splits of the Hub give for a label that is kept secret."""
    image, label = item
    return image, None if label is None or label < 0 else int(label)

"""Where images come from: folders, and the data sets that timm opens."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator
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
    get_img_extensions,
    infer_imagenet_subset,
)
from timm.utils.misc import natural_key

from vqzoo.data.batches import Loader, ModelInput, check_classes
from vqzoo.errors import UsageError, VqzooError, one_line

# The package behind each of timm's kinds of data set.
PACKAGES = {
    "torch": "torchvision",
    "hfds": "datasets",
    "hfids": "datasets",
    "tfds": "tensorflow_datasets",
    "wds": "webdataset",
}


@dataclass(frozen=True)
class Source:
    """Images that can be had one by one.

    Attributes:
        name: fit for a report, never a local path.
        count: how many there are, None for a stream.
        keys: what `load` takes, in the data set's own order; a list unless it is a stream.
        load: gives an image and its label.
        group: the class folder of a key, "" where there is none or it is not known beforehand.
        num_classes: the data's own number of classes, None where unknown.
        unlabelled: why there are no labels for the model, empty where there are.
    """

    name: str
    count: int | None
    keys: Iterable[Any]
    load: Loader
    group: Callable[[Any], str]
    num_classes: int | None
    unlabelled: str


def open_source(spec: str, wanted: ModelInput, split: str | None) -> Source:
    """Open `imagefolder:PATH`, or a data set by timm's name; see `open_data`.

    Raises:
        UsageError: the spec or the split makes no sense, or the classes are others.
        VqzooError: the data cannot be had or read.
    """
    kind, _, rest = spec.partition(":")
    if kind == "imagefolder":
        if split is not None:
            raise UsageError(f"{kind} has no splits to choose from: leave {split!r} out")
        return _open_folder(Path(rest).expanduser(), wanted)
    prefix = spec.partition("/")[0].lower()
    if "/" in spec and prefix in PACKAGES:
        return _open_timm(spec, prefix, split or "validation", wanted)
    raise UsageError(
        f"unknown data {spec!r}: fmnist, imagefolder:PATH, or a data set by timm's name such as "
        "hfds/NAME or torch/NAME"
    )


def _open_folder(folder: Path, wanted: ModelInput) -> Source:
    name = f"imagefolder:{folder.resolve().name}"
    try:
        classes, found = _scan(folder)
    except OSError as error:
        raise VqzooError(f"{folder} cannot be read: {error.strerror}") from error
    if not found:
        kinds = ", ".join(sorted(get_img_extensions()))
        raise VqzooError(f"{folder} has no images ({kinds}) in it or in its folders")
    labels, unlabelled = _labels(classes, found, wanted)
    return Source(
        name=name,
        count=len(found),
        keys=found,
        load=partial(_folder_image, labels),
        group=lambda image: image.folder,
        num_classes=len(classes) or None,
        unlabelled=unlabelled,
    )


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
    classes: list[str], found: list[_Found], wanted: ModelInput
) -> tuple[dict[str, int] | None, str]:
    """Class folder -> class of the model, or None with the reason why there are no labels."""
    if not classes:
        return None, "the folder has no class folders"
    if any(not image.folder for image in found):
        return None, "some images lie outside the class folders"
    in_order = {name: index for index, name in enumerate(classes)}
    if wanted.own_labels:
        return in_order, ""
    for names in _known_names(wanted):
        if set(classes) <= set(names):
            return {name: names.index(name) for name in classes}, ""
    if len(classes) == wanted.num_classes:
        return in_order, ""
    return None, f"{len(classes)} class folders, but the model has {wanted.num_classes} classes"


def _known_names(wanted: ModelInput) -> Iterator[list[str]]:
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
        raise VqzooError(f"{name} cannot be read: {one_line(error)}") from error
    return opened


def _open_timm(spec: str, prefix: str, split: str, wanted: ModelInput) -> Source:
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
        raise VqzooError(f"{spec}, split {split!r}, cannot be opened: {one_line(error)}") from error
    classes = _count_classes(dataset)
    check_classes(spec, classes, wanted.num_classes)
    if isinstance(dataset, IterableImageDataset):
        return Source(spec, None, dataset, _known_label, _no_group, classes, "")
    if not len(dataset):
        raise VqzooError(f"{spec}, split {split!r}, has no images")
    load = partial(_timm_image, spec, dataset)
    unlabelled = "its images have no labels" if load(0)[1] is None else ""
    return Source(spec, len(dataset), range(len(dataset)), load, _no_group, classes, unlabelled)


def _no_group(key: Any) -> str:
    return ""


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

"""Sources of images: folders, and the data sets that timm opens."""

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

# The package that each of timm's kinds of data set needs.
PACKAGES = {
    "torch": "torchvision",
    "hfds": "datasets",
    "hfids": "datasets",
    "tfds": "tensorflow_datasets",
    "wds": "webdataset",
}


@dataclass(frozen=True)
class Source:
    """Images that are loaded one by one.

    Attributes:
        name: fit for a report, never a local path.
        count: number of images, None for a stream.
        keys: what `load` takes, in the data set's own order; a list unless the source is a stream.
        load: loads the image behind a key, and its label.
        group: the class folder of a key; "" where it has none or the data set does not tell it
            before loading.
        num_classes: the data set's own number of classes, None where unknown.
        unlabelled: why the images have no labels for the model; empty where they have.
    """

    name: str
    count: int | None
    keys: Iterable[Any]
    load: Loader
    group: Callable[[Any], str]
    num_classes: int | None
    unlabelled: str


def open_source(spec: str, model_input: ModelInput, split: str | None) -> Source:
    """Open `imagefolder:PATH`, or a data set under timm's name; see `open_data`.

    Raises:
        UsageError: the specification or the split is invalid, or the data's classes are not the
            model's.
        VqzooError: the data is missing or cannot be read.
    """
    kind, _, rest = spec.partition(":")
    if kind == "imagefolder":
        if split is not None:
            raise UsageError(f"{kind} has no splits to choose from: leave {split!r} out")
        return _open_folder(Path(rest).expanduser(), model_input)
    prefix = spec.partition("/")[0].lower()
    if "/" in spec and prefix in PACKAGES:
        return _open_timm(spec, prefix, split or "validation", model_input)
    raise UsageError(
        f"unknown data {spec!r}: give fmnist, imagefolder:PATH, or a data set under timm's name "
        "such as hfds/NAME or torch/NAME"
    )


def open_training_source(spec: str, model_input: ModelInput) -> Source:
    """`open_source` for images to train or calibrate with: of timm's data sets, split `train`.

    Raises:
        UsageError: as `open_source`, and where the source is a stream.
        VqzooError: as `open_source`.
    """
    in_folder = spec.partition(":")[0] == "imagefolder"
    source = open_source(spec, model_input, None if in_folder else "train")
    if source.count is None:
        raise UsageError(f"{spec} is a stream and cannot be shuffled: choose another kind of data")
    return source


def _open_folder(folder: Path, model_input: ModelInput) -> Source:
    name = f"imagefolder:{folder.resolve().name}"
    try:
        classes, images = _scan(folder)
    except OSError as error:
        raise VqzooError(f"{folder} cannot be read: {error.strerror}") from error
    if not images:
        extensions = ", ".join(sorted(get_img_extensions()))
        raise VqzooError(f"{folder} and its folders have no images ({extensions})")
    labels, unlabelled = _labels(classes, images, model_input)
    return Source(
        name=name,
        count=len(images),
        keys=images,
        load=partial(_folder_image, labels),
        group=lambda image: image.folder,
        num_classes=len(classes) or None,
        unlabelled=unlabelled,
    )


class _ImageFile(NamedTuple):
    """An image file and the class folder that holds it; "" for a file in the root itself."""

    path: Path
    folder: str


def _scan(root: Path) -> tuple[list[str], list[_ImageFile]]:
    """List the folders of `root` in natural order, and all image files under it, sorted.

    Hidden files and folders are ignored; links are followed.

    Raises:
        OSError: `root` is missing, is not a folder, or cannot be read.
    """
    entries = [entry for entry in root.iterdir() if not entry.name.startswith(".")]
    classes = sorted((entry.name for entry in entries if entry.is_dir()), key=natural_key)
    extensions = get_img_extensions(as_set=True)
    images = [
        _ImageFile(entry, "")
        for entry in entries
        if entry.is_file() and _extension(entry) in extensions
    ]
    for name in classes:
        for where, folders, files in os.walk(root / name, followlinks=True):
            folders[:] = [f for f in folders if not f.startswith(".")]
            paths = [Path(where, f) for f in files if not f.startswith(".")]
            images += [_ImageFile(path, name) for path in paths if _extension(path) in extensions]
    return classes, sorted(images, key=lambda image: natural_key(str(image.path)))


def _extension(path: Path) -> str:
    return path.suffix.lower()


def _labels(
    classes: list[str], images: list[_ImageFile], model_input: ModelInput
) -> tuple[dict[str, int] | None, str]:
    """Class folder -> class of the model; or None, and the reason why there are no labels."""
    if not classes:
        return None, "the folder has no class folders"
    if any(not image.folder for image in images):
        return None, "some images lie outside the class folders"
    in_order = {name: index for index, name in enumerate(classes)}
    if model_input.own_labels:
        return in_order, ""
    for names in _known_names(model_input):
        if set(classes) <= set(names):
            return {name: names.index(name) for name in classes}, ""
    if len(classes) == model_input.num_classes:
        return in_order, ""
    return (
        None,
        f"{len(classes)} class folders, but the model has {model_input.num_classes} classes",
    )


def _known_names(model_input: ModelInput) -> Iterator[list[str]]:
    subset = infer_imagenet_subset({"num_classes": model_input.num_classes})
    if subset is not None:
        yield ImageNetInfo(subset).label_names()
    if len(model_input.label_names) == model_input.num_classes:
        yield list(model_input.label_names)


def _folder_image(
    labels: dict[str, int] | None, image: _ImageFile
) -> tuple[Image.Image, int | None]:
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


def _open_timm(spec: str, prefix: str, split: str, model_input: ModelInput) -> Source:
    package = PACKAGES[prefix]
    if importlib.util.find_spec(package) is None:
        raise VqzooError(f"{spec} needs the package {package}: pip install {package}")
    # torchvision's data sets need a root; the other packages have caches of their own.
    root = {"root": str(Path(torch.hub.get_dir()) / "datasets")} if prefix == "torch" else {}
    try:
        dataset = create_dataset(
            spec, split=split, input_img_mode=model_input.mode, download=prefix == "torch", **root
        )
    except (ImportError, OSError, RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise VqzooError(f"{spec}, split {split!r}, cannot be opened: {one_line(error)}") from error
    classes = _count_classes(dataset)
    check_classes(spec, classes, model_input.num_classes)
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
    # timm's own __getitem__ would replace an unreadable image by the next one.
    file, label = dataset.reader[index]
    return _known_label((_open_image(file, f"{spec}, image {index}"), label))


def _known_label(item: tuple[Image.Image, int | None]) -> tuple[Image.Image, int | None]:
    """An image with its label; the Hub's test splits give -1 for labels that are kept secret."""
    image, label = item
    return image, None if label is None or label < 0 else int(label)

"""Folders of images: one folder for each class, and the classes that they stand for."""

import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from timm.data import ImageNetInfo, get_img_extensions, infer_imagenet_subset

from vqzoo.data.class_map import ClassMap, class_map_name, read_class_map, shortened
from vqzoo.data.model_input import ModelInput
from vqzoo.errors import ClassOrderWarning, UsageError


class ImageFile(NamedTuple):
    """An image file and the class folder that holds it; "" for a file in the root itself."""

    path: Path
    folder: str


@dataclass(frozen=True)
class FolderLabels:
    """The classes of the class folders.

    Attributes:
        classes: class folder -> class of the model; None where images have no labels.
        rule: how the folders became classes, for the user; empty where images have no labels.
        unlabelled: why images have no labels; empty where they have.
        ambiguous: what else the order of the folders could be, for a warning; empty where it
            decides nothing.
    """

    classes: dict[str, int] | None
    rule: str = ""
    unlabelled: str = ""
    ambiguous: str = ""


def scan_folders(root: Path) -> tuple[list[str], list[ImageFile]]:
    """List the folders of `root` in natural order, and all image files under it, sorted.

    Hidden files and folders are ignored; links are followed.

    Raises:
        OSError: `root` is missing, is not a folder, or cannot be read.
    """
    entries = [entry for entry in root.iterdir() if not entry.name.startswith(".")]
    classes = sorted((entry.name for entry in entries if entry.is_dir()), key=_natural_key)
    extensions = get_img_extensions(as_set=True)
    images = [
        ImageFile(entry, "")
        for entry in entries
        if entry.is_file() and _extension(entry) in extensions
    ]
    for name in classes:
        for where, folders, files in os.walk(root / name, followlinks=True):
            folders[:] = [f for f in folders if not f.startswith(".")]
            paths = [Path(where, f) for f in files if not f.startswith(".")]
            images += [ImageFile(path, name) for path in paths if _extension(path) in extensions]
    return classes, sorted(images, key=lambda image: _natural_key(str(image.path)))


def label_folders(
    classes: list[str],
    images: list[ImageFile],
    model_input: ModelInput,
    class_map: ClassMap | None,
) -> FolderLabels:
    """Decide which class of the model each class folder is; see `open_data`.

    Args:
        classes: the class folders in natural order.
        images: all images, which may lie outside the class folders.
        model_input: the model's classes.
        class_map: what the user says.

    Raises:
        UsageError: the class map does not fit the folders or the model.
    """
    problem = ""
    if not classes:
        problem = "the folder has no class folders"
    elif any(not image.folder for image in images):
        problem = "some images lie outside the class folders"
    if class_map is not None:
        if problem:
            raise UsageError(f"the class map has nothing to say: {problem}")
        bound = None if model_input.own_labels else model_input.num_classes
        mapped = read_class_map(class_map, classes, bound)
        return FolderLabels(mapped, f"class folders by class map: {class_map_name(class_map)}")
    if problem:
        return FolderLabels(None, unlabelled=problem)
    in_order = {name: index for index, name in enumerate(classes)}
    if model_input.own_labels:
        return FolderLabels(in_order)
    strangers: list[str] = []
    for kind, names in _known_names(model_input):
        unknown = [name for name in classes if name not in names]
        if not unknown:
            by_name = {name: names[name] for name in classes}
            return FolderLabels(by_name, f"class folders by name: {kind}")
        if len(unknown) < len(classes):
            strangers = unknown
    if len(classes) == model_input.num_classes:
        rule = (
            f"class folders in natural order: {classes[0]!r} is class 0, "
            f"{classes[-1]!r} is class {len(classes) - 1}"
        )
        return FolderLabels(in_order, rule, ambiguous=_other_order(classes))
    reason = f"{len(classes)} class folders, but the model has {model_input.num_classes} classes"
    if strangers:
        reason += f", and none is called {shortened(strangers)}"
    return FolderLabels(None, unlabelled=f"{reason}; --class-map FILE says which they are")


def warn_of_order(name: str, ambiguous: str) -> None:
    """Warn where the class folders' labels depend on how they are sorted."""
    if ambiguous:
        warnings.warn(f"{name}: {ambiguous}", ClassOrderWarning, stacklevel=1)


def _other_order(classes: list[str]) -> str:
    """How text order differs from natural order, in which `classes` are; empty if it does not."""
    as_text = sorted(classes)
    place = next((i for i, name in enumerate(as_text) if name != classes[i]), None)
    if place is None:
        return ""
    return (
        f"class {place} is the folder {classes[place]!r} in natural order, as timm sorts, and "
        f"{as_text[place]!r} in text order, as torchvision's ImageFolder sorts; natural order is "
        "used: give --class-map FILE if the model learned the other"
    )


def _known_names(model_input: ModelInput) -> Iterator[tuple[str, dict[str, int]]]:
    """Kinds of names that the model's classes have, and name -> class."""
    if model_input.label_names and len(model_input.label_names) == model_input.num_classes:
        yield "the model's label names", _positions(model_input.label_names)
    subset = infer_imagenet_subset({"num_classes": model_input.num_classes})
    if subset is not None:
        yield f"synsets of {subset}", _positions(ImageNetInfo(subset).label_names())


def _positions(names: list[str] | tuple[str, ...]) -> dict[str, int]:
    return {name: index for index, name in reversed(list(enumerate(names)))}


def _natural_key(name: str) -> tuple[list[int | str], str]:
    """timm's `natural_key`: numbers count as numbers, case does not. Names that it takes for equal
    ("1", "01") are in text order, and not as the file system lists them."""
    parts = re.split(r"(\d+)", name.lower())
    return [int(part) if part.isdecimal() else part for part in parts], name


def _extension(path: Path) -> str:
    return path.suffix.lower()

"""Sources of images: folders, and the data sets that timm opens."""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from PIL import Image, UnidentifiedImageError
from timm.data import (
    ImageDataset,
    IterableImageDataset,
    create_dataset,
    get_img_extensions,
)

from vqzoo.data.batches import Loader, check_classes
from vqzoo.data.class_folders import ImageFile, label_folders, scan_folders
from vqzoo.data.class_map import ClassMap
from vqzoo.data.image_modes import to_eight_bits
from vqzoo.data.model_input import ModelInput
from vqzoo.errors import UnreadableImagesWarning, UsageError, VqzooError, one_line

# The package that each of timm's kinds of data set needs.
PACKAGES = {
    "torch": "torchvision",
    "hfds": "datasets",
    "hfids": "datasets",
    "tfds": "tensorflow_datasets",
    "wds": "webdataset",
}

_LISTED = 20  # unreadable images in a warning


@dataclass(frozen=True)
class ReadOptions:
    """How to read images.

    Attributes:
        class_map: the class of each class folder (see `vqzoo.data.class_map`), None to go by names
            or by order.
        skip_unreadable: leave out images that cannot be read, instead of failing.
    """

    class_map: ClassMap | None = None
    skip_unreadable: bool = False


READ_ALL = ReadOptions()


def read_options(spec: str, class_map: ClassMap | None, skip_unreadable: bool) -> ReadOptions:
    """How to read one of several data sets with common options: a class map is for folders."""
    in_folder = spec.partition(":")[0] == "imagefolder"
    return ReadOptions(class_map if in_folder else None, skip_unreadable)


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
        name_of: the name of a key's image, without local folders above the data.
        labels: how class folders became labels, for the user; empty for other data.
        ambiguous: see `FolderLabels`.
        file_of: the file of a key's image; None where images are no files of their own.
        label_of: the label of a key's image, which is not read; None where only reading tells.
        content_of: the stored bytes of a key's image, which are not decoded; None where images are
            not stored one by one.
    """

    name: str
    count: int | None
    keys: Iterable[Any]
    load: Loader
    group: Callable[[Any], str]
    num_classes: int | None
    unlabelled: str
    name_of: Callable[[Any], str]
    labels: str = ""
    ambiguous: str = ""
    file_of: Callable[[Any], Path] | None = None
    label_of: Callable[[Any], int | None] | None = None
    content_of: Callable[[Any], bytes] | None = None


def open_source(
    spec: str, model_input: ModelInput, split: str | None, options: ReadOptions
) -> Source:
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
        return _open_folder(Path(rest).expanduser(), model_input, options)
    refuse_class_map(spec, options)
    prefix = spec.partition("/")[0].lower()
    if "/" in spec and prefix in PACKAGES:
        return _open_timm(spec, prefix, split or "validation", model_input, options)
    raise UsageError(
        f"unknown data {spec!r}: give fmnist, imagefolder:PATH, or a data set under timm's name "
        "such as hfds/NAME or torch/NAME"
    )


def open_training_source(spec: str, model_input: ModelInput, options: ReadOptions) -> Source:
    """`open_source` for images to train or calibrate with: of timm's data sets, split `train`.

    Raises:
        UsageError: as `open_source`, and where the source is a stream.
        VqzooError: as `open_source`.
    """
    in_folder = spec.partition(":")[0] == "imagefolder"
    source = open_source(spec, model_input, None if in_folder else "train", options)
    if source.count is None:
        raise UsageError(f"{spec} is a stream and cannot be shuffled: choose another kind of data")
    return source


def refuse_class_map(spec: str, options: ReadOptions) -> None:
    """Refuse a class map for data without class folders.

    Raises:
        UsageError: there is a class map.
    """
    if options.class_map is not None:
        raise UsageError(f"{spec} has no class folders for a class map: leave the class map out")


def readable_keys(
    source: Source, keys: Sequence[Any], model_input: ModelInput, options: ReadOptions
) -> tuple[list[Any], tuple[str, ...]]:
    """The keys of the images that can be read, and the names of the other images.

    All images are read to tell, if `options` asks to skip any; a warning names those left out.

    Raises:
        VqzooError: no image can be read.
    """
    if not options.skip_unreadable:
        return list(keys), ()

    def reads(key: Any) -> bool:
        try:
            to_eight_bits(source.load(key)[0], model_input.mode)
        except VqzooError:
            return False
        return True

    with ThreadPoolExecutor(min(8, torch.get_num_threads())) as pool:
        verdicts = list(pool.map(reads, keys))
    kept = [key for key, good in zip(keys, verdicts, strict=True) if good]
    lost = [source.name_of(key) for key, good in zip(keys, verdicts, strict=True) if not good]
    if not kept:
        raise VqzooError(f"{source.name}: none of {len(lost):,} images can be read")
    if lost:
        count = "1 image" if len(lost) == 1 else f"{len(lost):,} images"
        more = f" and {len(lost) - _LISTED:,} more" if len(lost) > _LISTED else ""
        warnings.warn(
            f"{source.name}: {count} of {len(keys):,} cannot be read and will be left out: "
            f"{', '.join(sorted(lost)[:_LISTED])}{more}",
            UnreadableImagesWarning,
            stacklevel=1,  # one place, so that several passes warn once
        )
    return kept, tuple(sorted(lost))


def content_hash(source: Source, keys: Sequence[Any]) -> Callable[[], str] | None:
    """What `Data.content` is for some images of a source.

    It reads every image, and decodes none: 50,000 JPEG files of ImageNet take a few seconds where
    the files are in the system's cache. Names, folders above the data and times do not count, so
    that copies on other machines have the same hash.
    """
    content_of, label_of = source.content_of, source.label_of
    if content_of is None:
        return None

    def one(key: Any) -> bytes:
        try:
            content = hashlib.sha256(content_of(key)).digest()
        except OSError as error:
            raise VqzooError(f"{source.name_of(key)} cannot be read: {one_line(error)}") from error
        label = None if label_of is None else label_of(key)
        return content + repr(label).encode()

    return partial(sha256_of_all, one, keys)


def sha256_of_all(hash_of: Callable[[Any], bytes], keys: Iterable[Any], before: bytes = b"") -> str:
    """Hex sha256 of `before` and the hashes of many files or images, which threads compute."""
    digest = hashlib.sha256(before)
    with ThreadPoolExecutor(min(8, torch.get_num_threads())) as pool:
        for part in pool.map(hash_of, keys):
            digest.update(part)
    return digest.hexdigest()


def _open_folder(folder: Path, model_input: ModelInput, options: ReadOptions) -> Source:
    name = f"imagefolder:{folder.resolve().name}"
    try:
        classes, images = scan_folders(folder)
    except OSError as error:
        raise VqzooError(f"{folder} cannot be read: {error.strerror}") from error
    if not images:
        extensions = ", ".join(sorted(get_img_extensions()))
        raise VqzooError(f"{folder} and its folders have no images ({extensions})")
    labels = label_folders(classes, images, model_input, options.class_map)
    return Source(
        name=name,
        count=len(images),
        keys=images,
        load=partial(_folder_image, labels.classes),
        group=lambda image: image.folder,
        num_classes=len(classes) or None,
        unlabelled=labels.unlabelled,
        name_of=lambda image: image.path.relative_to(folder).as_posix(),
        labels=labels.rule,
        ambiguous=labels.ambiguous,
        file_of=lambda image: image.path,
        label_of=partial(_folder_label, labels.classes),
        content_of=lambda image: image.path.read_bytes(),
    )


def _folder_image(
    labels: dict[str, int] | None, image: ImageFile
) -> tuple[Image.Image, int | None]:
    return _open_image(image.path, str(image.path)), _folder_label(labels, image)


def _folder_label(labels: dict[str, int] | None, image: ImageFile) -> int | None:
    return None if labels is None else labels[image.folder]


def _open_image(file: Path | IO[bytes], name: str) -> Image.Image:
    try:
        with Image.open(file) as opened:
            opened.load()
    except UnidentifiedImageError as error:
        raise VqzooError(f"{name} cannot be read: not an image of a known kind") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise VqzooError(f"{name} cannot be read: {one_line(error)}") from error
    return opened


def _open_timm(
    spec: str, prefix: str, split: str, model_input: ModelInput, options: ReadOptions
) -> Source:
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
        if options.skip_unreadable:
            raise UsageError(f"{spec} is a stream: unreadable images cannot be skipped")
        return Source(spec, None, dataset, _known_label, _no_group, classes, "", _no_group)
    if not len(dataset):
        raise VqzooError(f"{spec}, split {split!r}, has no images")
    load = partial(_timm_image, spec, dataset)
    first = _first_label(load, len(dataset) if options.skip_unreadable else 1)
    unlabelled = "its images have no labels" if first is None else ""
    return Source(
        name=spec,
        count=len(dataset),
        keys=range(len(dataset)),
        load=load,
        group=_no_group,
        num_classes=classes,
        unlabelled=unlabelled,
        name_of=lambda i: f"image {i}",
        content_of=partial(_stored_image, dataset) if isinstance(dataset, ImageDataset) else None,
    )


def _no_group(key: Any) -> str:
    return ""


def _first_label(load: Loader, images: int) -> int | None:
    """The label of the first of some images that can be read."""
    for index in range(images):
        try:
            return load(index)[1]
        except VqzooError:
            if index == images - 1:
                raise
    return None


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


def _stored_image(dataset: Any, index: int) -> bytes:
    file, label = dataset.reader[index]
    with file:
        content: bytes = file.read()
    return repr(label).encode() + b" " + content


def _known_label(item: tuple[Image.Image, int | None]) -> tuple[Image.Image, int | None]:
    """An image with its label; the Hub's test splits give -1 for labels that are kept secret."""
    image, label = item
    return image, None if label is None or label < 0 else int(label)

"""Decoded images that stay on disk for the next process of the same machine.

What is kept is the 8-bit image just before it becomes floats: a quarter of their size, and the same
for networks that normalize differently. The floats are computed from it by the same operations.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor

from vqzoo.data.batches import Batch, loaded_batches
from vqzoo.data.image_modes import to_eight_bits
from vqzoo.data.model_input import ModelInput
from vqzoo.data.sources import Source, sha256_of_all
from vqzoo.storage.bounded import drop_oldest, mark_used

KEPT_BYTES = 8 << 30  # of all files together; the 50,000 images of ImageNet at 224 pixels fit
_FORM = 1  # of the files; raise it when what they hold changes
_TO_FLOATS = ["MaybeToTensor", "Normalize"]  # how timm's transforms end

_folder: ContextVar[Path | None] = ContextVar("pixels_folder", default=None)


@contextmanager
def pixels_in(folder: Path | None) -> Iterator[None]:
    """Keep decoded images in this folder inside the block; None changes nothing."""
    token = _folder.set(folder or _folder.get())
    try:
        yield
    finally:
        _folder.reset(token)


def kept_batches(
    source: Source, keys: Sequence[Any], model_input: ModelInput, batch_size: int
) -> Iterator[Batch] | None:
    """`transformed_batches` of image files, which are decoded only if the folder of an enclosing
    `pixels_in` does not have them.

    They are found again by the hash of the files' bytes in their order, of what is done to them,
    and of the versions of what does it. Files are written whole or not at all; the least recently
    used ones go where all together exceed 8 GiB.

    Returns:
        The batches; None outside a block, for sources that are no files, for more images than the
        bound, and if the folder is not usable.
    """
    folder, file_of, label_of = _folder.get(), source.file_of, source.label_of
    transform = create_transform(**model_input.config, is_training=False)
    steps = getattr(transform, "transforms", [])
    if folder is None or file_of is None or label_of is None:
        return None
    shape = (len(keys), *model_input.config["input_size"])
    if [type(step).__name__ for step in steps[-2:]] != _TO_FLOATS or np.prod(shape) > KEPT_BYTES:
        return None
    normalize = steps[-1]

    def floats(batch: Batch) -> Batch:
        return batch._replace(images=normalize(batch.images.to(torch.float32).div(255)))

    try:
        files = [file_of(key) for key in keys]
        path = folder / f"{_digest(files, steps[:-2], model_input)}.npy"
        if (pixels := _open(path, shape)) is None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    labels = [label_of(key) for key in keys]
    if pixels is not None:
        return map(floats, _batches(pixels, labels, batch_size))

    def sample(key: Any) -> tuple[Tensor, int | None]:
        image, label = source.load(key)
        image = to_eight_bits(image, model_input.mode)
        for step in steps[:-2]:
            image = step(image)
        return _pixels(image), label

    return map(floats, _keeping(loaded_batches(sample, keys, batch_size), path, shape))


def _pixels(image: Image.Image) -> Tensor:
    """uint8, C x H x W."""
    values = torch.from_numpy(np.array(image, dtype=np.uint8))
    return values.view(image.height, image.width, -1).permute(2, 0, 1).contiguous()


def _digest(files: Sequence[Path], steps: Sequence[Any], model_input: ModelInput) -> str:
    """Hex sha256 of everything that the pixels follow from."""
    facts = [_FORM, model_input.mode, model_input.config["input_size"], [repr(s) for s in steps]]
    facts += [version(package) for package in ("pillow", "timm", "torchvision", "torch", "vqzoo")]
    return sha256_of_all(_file_hash, files, before=repr(facts).encode())


def _file_hash(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _open(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The pixels in a file; None if there is none, or a damaged one."""
    try:
        pixels: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        mark_used(path)
    except (OSError, ValueError, EOFError):
        return None
    return pixels if pixels.shape == shape and pixels.dtype == np.uint8 else None


def _batches(pixels: np.ndarray, labels: Sequence[int | None], batch_size: int) -> Iterator[Batch]:
    for start in range(0, len(pixels), batch_size):
        part = slice(start, start + batch_size)
        known = [label for label in labels[part] if label is not None]
        yield Batch(
            torch.from_numpy(np.array(pixels[part])), torch.tensor(known) if known else None
        )


def _keeping(batches: Iterator[Batch], path: Path, shape: tuple[int, ...]) -> Iterator[Batch]:
    """Pass batches on, and keep them if all of them are asked for and the disk takes them."""
    # Of two processes that decode the same, each writes a file of its own; the last one stays.
    mine = path.with_name(f"{path.stem}-{uuid4().hex}.tmp")
    try:
        with suppress(OSError):
            _begin(mine, shape)
        for batch in batches:
            if mine.exists():
                try:
                    _append(mine, batch)
                except OSError:  # the disk is full
                    mine.unlink(missing_ok=True)
            yield batch
        with suppress(OSError):  # it was never begun, or another process made room
            mine.replace(path)
            drop_oldest(path.parent, KEPT_BYTES, keep=path)
    finally:
        mine.unlink(missing_ok=True)


def _begin(path: Path, shape: tuple[int, ...]) -> None:
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)


def _append(path: Path, batch: Batch) -> None:
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(batch.images.numpy().tobytes())

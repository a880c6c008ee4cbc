"""Fashion-MNIST: the IDX files, and the part of the data set that ships in the package.

Xiao, Rasul, Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
algorithms" (2017), arXiv 1708.07747: 28x28 grey images of ten kinds of clothing, 60,000 for
training and 10,000 for testing.

The package holds the test split, which serves evaluation alone, and 5,000 of the training images,
which serve everything else: calibration, fine-tuning, validation. `tools.train_embedded` holds out
these same 5,000 images, so the embedded networks have never been trained on them and behave on
them as on new images. They are shuffled so that every run of ten consecutive images, from the first
on, has one image of each class: a cut at any multiple of ten makes two balanced parts (say 4,000 to
fine-tune with and 1,000 to validate on).
"""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vqzoo.errors import VqzooError

ASSETS = Path(__file__).parent / "assets" / "fashion-mnist"
HELD_OUT = 5_000
HELD_OUT_SEED = 20170828
CLASSES = 10

SOURCES = (
    "Debian's package dataset-fashion-mnist, torchvision.datasets.FashionMNIST "
    "and https://github.com/zalandoresearch/fashion-mnist have them"
)


@dataclass(frozen=True)
class LabelledImages:
    """Images (uint8, N x 1 x 28 x 28) and their labels (int64, N)."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise ValueError(f"{len(self.images)} images but {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int | slice | Tensor) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]


def test_split() -> LabelledImages:
    """The 10,000 test images, in the data set's own order.

    They serve evaluation alone: nothing may train, calibrate, stop early or choose options by them.

    Raises:
        VqzooError: the package data is missing or damaged.
    """
    return read_split(ASSETS, "t10k")


test_split.__test__ = False  # type: ignore[attr-defined]  # not a pytest test


def train_subset() -> LabelledImages:
    """The 5,000 embedded training images, 500 of each class: `held_out_indices` says which.

    Raises:
        VqzooError: the package data is missing or damaged.
    """
    return read_split(ASSETS, "train5k")


def train_split(folder: Path) -> LabelledImages:
    """The 60,000 training images from the two IDX files in `folder`.

    Raises:
        VqzooError: a file is missing or damaged.
    """
    return read_split(folder, "train")


def training_folder(spec: str) -> Path | None:
    """The folder of `fmnist:FOLDER`; None for `fmnist`, which stands for the embedded images."""
    _, colon, folder = spec.partition(":")
    return Path(folder).expanduser() if colon else None


def held_out_indices(labels: Tensor) -> Tensor:
    """Positions in `labels` of the training images that are held out and embedded: (5000,) int64.

    A seeded draw takes 500 images of each class; each run of ten then has the ten classes in an
    order drawn for it.
    """
    rng = np.random.Generator(np.random.PCG64(HELD_OUT_SEED))
    by_class = [
        rng.choice(np.flatnonzero(labels.numpy() == c), HELD_OUT // CLASSES, replace=False)
        for c in range(CLASSES)
    ]
    runs = rng.permuted(np.stack(by_class, axis=1), axis=1)
    return torch.from_numpy(runs.reshape(-1).astype(np.int64))


def read_split(folder: Path, stem: str) -> LabelledImages:
    """Read `{stem}-images-idx3-ubyte.gz` and `{stem}-labels-idx1-ubyte.gz` from `folder`.

    Raises:
        VqzooError: a file is missing or damaged, or the two do not match.
    """
    images = read_idx(folder / f"{stem}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{stem}-labels-idx1-ubyte.gz")
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise VqzooError(
            f"{folder}: the {stem} files do not match "
            f"({tuple(images.shape)} images, {tuple(labels.shape)} labels)"
        )
    return LabelledImages(images.unsqueeze(1), labels.long())


def read_idx(path: Path) -> Tensor:
    """Read a gzipped IDX file of unsigned bytes (LeCun's format) into a uint8 tensor.

    Raises:
        VqzooError: the file is missing, not gzip, not IDX, or shorter or longer than it says.
    """
    try:
        raw = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise VqzooError(f"{path} is missing; {SOURCES}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise VqzooError(f"{path} cannot be read ({error}); {SOURCES}") from error
    # Two zero bytes, the element type (8: unsigned byte), the rank, then big-endian sides.
    rank = raw[3] if raw[:3] == b"\0\0\x08" and len(raw) > 3 else 0
    if rank == 0 or len(raw) < 4 + 4 * rank:
        raise VqzooError(f"{path} is not an IDX file of unsigned bytes; {SOURCES}")
    shape = struct.unpack_from(f">{rank}I", raw, 4)
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * rank)
    if values.size != int(np.prod(shape, dtype=object)):
        raise VqzooError(f"{path} is damaged: {values.size} bytes for shape {shape}; {SOURCES}")
    return torch.from_numpy(values.reshape(shape).copy())

"""Write the Fashion-MNIST files of the package: `python -m tools.embed_fmnist --data DIR`.

DIR holds the four IDX .gz files of the data set and its LICENSE. The test split and the licence are
copied unchanged; `vqzoo.data.fmnist.held_out_indices` chooses the training images to embed. The
same input gives the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import struct
import sys
from pathlib import Path

from torch import Tensor

from vqzoo.artifact.files import new_file
from vqzoo.data.fmnist import ASSETS, SOURCES, held_out_indices, train_split
from vqzoo.errors import VqzooError

COPIED = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", "LICENSE")


def write_idx(values: Tensor, path: Path) -> None:
    """Write a uint8 tensor as a gzipped IDX file without a time stamp."""
    header = b"\0\0\x08" + bytes([values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    with new_file(path) as temporary:
        temporary.write_bytes(gzip.compress(header + values.numpy().tobytes(), 9, mtime=0))


def embed(data: Path, out: Path) -> None:
    """Write the files to embed to the folder `out`, from the data set in the folder `data`.

    Raises:
        VqzooError: a file is missing or damaged.
    """
    split = train_split(data)
    images, labels = split[held_out_indices(split.labels)]
    out.mkdir(parents=True, exist_ok=True)
    write_idx(images.squeeze(1), out / "train5k-images-idx3-ubyte.gz")
    write_idx(labels.byte(), out / "train5k-labels-idx1-ubyte.gz")
    for name in COPIED:
        if not (data / name).is_file():
            raise VqzooError(f"{data / name} does not exist; {SOURCES}")
        with new_file(out / name) as temporary:
            shutil.copyfile(data / name, temporary)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.embed_fmnist",
        description="Write the Fashion-MNIST files of the package.",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder to write (package data)")
    args = parser.parse_args(argv)
    try:
        embed(args.data, args.out)
    except VqzooError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

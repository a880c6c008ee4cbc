"""Products of rows of a matrix, decoded a few at a time, with a few columns.

The columns are gathered into panels once, in the order in which the product's kernel reads them;
those of a convolution's inputs straight from the maps. torch's own products copy their operands
anew for every few rows.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqzoo.numerics.arrays import Floats, Ints, as_float32
from vqzoo.numerics.kernels.lines import LINE
from vqzoo.numerics.kernels.panels.dense import ROWS, multiply_panels
from vqzoo.numerics.kernels.panels.gather import gather_panels
from vqzoo.numerics.kernels.panels.mix import mix_panels
from vqzoo.numerics.kernels.vectors import LANES
from vqzoo.numerics.threads import run_kernel

TOGETHER = ROWS
"""Rows that are multiplied together: products of multiples of it take least time."""

_GATHERED = 1 << 16  # values a task
_MIXED = 1 << 18  # multiplications a task
_NARROW = LANES // LINE  # panels of 16 columns that take as long as a wide one


@dataclass(frozen=True)
class Panels:
    """The columns of an (n, count) matrix, side by side: wide panels first, then narrow ones.

    Attributes:
        wide: flat, (panels, n, `LANES`) float32.
        narrow: flat, (panels, n, 16) float32; fewer of them than take as long as a wide one. The
            lanes behind the last column are 0.
        n: rows.
        count: columns.
    """

    wide: Floats
    narrow: Floats
    n: int
    count: int

    def scaled(self, factors: Tensor) -> "Panels":
        """The matrix whose rows are multiplied by `factors`, (n,)."""
        return self.mixed(torch.ones(1, 1), factors)

    def mixed(self, basis: Tensor, factors: Tensor) -> "Panels":
        """The matrix whose rows are, block by block of as many as the basis has, the basis times
        the rows, and then multiplied by factors.

        Args:
            basis: (taps, taps) float.
            factors: (n,) float, n a multiple of taps.
        """
        both = torch.empty(self.wide.size + self.narrow.size).numpy()
        panels, parts = (self.wide, self.narrow), (both[: self.wide.size], both[self.wide.size :])
        values, scales, blocks = as_float32(basis), as_float32(factors), self.n // len(basis)
        height = max(1, _MIXED * blocks // max(1, both.size * len(basis)))

        def mix(team: Ints) -> None:
            mix_panels(team, height, values, scales, self.n, panels, parts)

        run_kernel(mix, -(-blocks // height))
        return Panels(*parts, self.n, self.count)

    def products(self, m: int) -> NDArray[np.float32]:
        """Memory for `multiply_rows` with a matrix of m rows."""
        width = (self.wide.size + self.narrow.size) // max(1, self.n)
        return torch.empty(m, width).numpy()  # aligned, unlike numpy's


@dataclass(frozen=True)
class Places:
    """Where the entries of a group of rows lie in what they are gathered from.

    Attributes:
        places: (taps, width) int64, one for each lane of the panels; negative where entries are 0.
        runs: of adjacent places, see `panels.gather`.
        wide: lanes of all wide panels.
        count: columns.
    """

    places: Ints
    runs: tuple[Ints, Ints, Ints]
    wide: int
    count: int


def places_of(table: Ints) -> Places:
    """The places (taps, count), count at least 1; negative ones stand for entries that are 0."""
    taps, count = table.shape
    lines = -(-count // LINE)
    wide = lines // _NARROW * LANES
    width = wide + lines % _NARROW * LINE
    if lines % _NARROW == _NARROW - 1 and _NARROW > 2:  # as many products as a wide panel's
        wide = width = wide + LANES
    places = np.full((taps, width), -1, np.int64)
    places[:, :count] = table
    return Places(places, _runs(places.reshape(-1, LINE)), wide, count)


def _runs(lines: Ints) -> tuple[Ints, Ints, Ints]:
    """The runs of places in lines of 16, see `panels.gather`."""
    inside = lines >= 0
    offsets = np.where(inside, lines - np.arange(LINE), -LINE)  # all places of a run have the same
    begins = inside & (np.diff(offsets, axis=1, prepend=-LINE) != 0)
    numbers = np.cumsum(begins).reshape(lines.shape) - 1
    masks = np.zeros(np.count_nonzero(begins), np.int64)
    np.add.at(masks, numbers[inside], np.broadcast_to(1 << np.arange(LINE), lines.shape)[inside])
    return np.concatenate([[0], np.cumsum(begins.sum(1))]), offsets[begins], masks


def transposed(x: Tensor) -> Panels:
    """The matrix whose columns are the rows of x, (count, n), contiguous float32 on the CPU."""
    count, n = x.shape
    return gathered(x, n, 1, _columns(count, n))


def as_panels(matrix: Tensor) -> Panels:
    """A matrix (n, count), contiguous float32 on the CPU."""
    n, count = matrix.shape
    return gathered(matrix, n, count, _columns(count, 1))


@lru_cache(maxsize=64)  # of the layers of a network, many are of one shape
def _columns(count: int, step: int) -> Places:
    return places_of(np.arange(count)[None] * step)


def gathered(source: Tensor, groups: int, jump: int, places: Places) -> Panels:
    """The matrix whose entry (group·taps + tap, j) is source[group·jump + places[tap, j]].

    Args:
        source: float32 on the CPU, contiguous, read flat.
        groups: of rows.
        jump: positions from one group to the next.
        places: of the first group.
    """
    taps, width = places.places.shape
    n = groups * taps
    values = torch.empty(n * width).numpy()
    parts = values[: n * places.wide], values[n * places.wide :]
    flat = source.detach().reshape(-1).numpy()
    height = max(1, _GATHERED // width)

    def gather(team: Ints) -> None:
        gather_panels(team, height, flat, jump, places.places, places.runs, parts)

    run_kernel(gather, -(-n // height))
    return Panels(*parts, n, places.count)


def multiply_rows(matrix: Tensor, panels: Panels, out: Floats, first: int) -> None:
    """Write the products of rows with all columns to rows `first` and following of `out`.

    Args:
        matrix: (rows, n), contiguous float32 on the CPU.
        panels: the columns.
        out: from `Panels.products`; behind the columns, it gets values without meaning.
    """
    flat, width, n = matrix.detach().reshape(-1).numpy(), out.shape[1], panels.n
    target = out[first:].reshape(-1)
    both = (panels.wide, panels.narrow)
    multiply_panels(flat, n, len(matrix), (0, n), both, n, target, width, False)


def as_columns(products: Floats, count: int) -> Tensor:
    """The products with the columns themselves, (m, count); in the same memory."""
    return torch.from_numpy(products)[:, :count]

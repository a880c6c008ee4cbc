"""Products of rows of a matrix, decoded a few at a time, with a few columns.

The columns are gathered into panels once, in the order in which the product's kernel reads them;
those of a convolution's inputs straight from the maps. torch's own products copy their operands
anew for every few rows.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqzoo.numerics.arrays import Floats, Ints
from vqzoo.numerics.kernels.lines import LINE
from vqzoo.numerics.kernels.products.panels import (
    ROWS,
    gather_panels,
    multiply_narrow_panel,
    multiply_panels,
)
from vqzoo.numerics.kernels.vectors import LANES

TOGETHER = ROWS
"""Rows that are multiplied together: products of multiples of it take least time."""


@dataclass(frozen=True)
class Panels:
    """The columns of an (n, count) matrix, side by side.

    Attributes:
        values: flat, (panels, n, lanes) float32; the lanes behind the last column repeat one.
        n: rows.
        count: columns.
        lanes: columns of a panel.
    """

    values: Floats
    n: int
    count: int
    lanes: int

    def products(self, m: int) -> NDArray[np.float32]:
        """Memory for `multiply_rows` with a matrix of m rows."""
        return np.empty((m, self.values.size // max(1, self.n)), np.float32)


def gathered(source: Tensor, rows: Ints, columns: Ints) -> Panels:
    """The matrix whose entry (k, j) is source[rows[k] + columns[j]].

    Args:
        source: float32 on the CPU, contiguous, read flat.
        rows: (n,), not negative.
        columns: (count,), not negative, at least one.
    """
    lanes = LINE if len(columns) <= LINE else LANES
    padded = np.zeros(-(-len(columns) // lanes) * lanes, np.int64)
    padded[: len(columns)] = columns
    padded[len(columns) :] = columns[0]
    values = np.empty(len(rows) * len(padded), np.float32)
    gather_panels(source.detach().reshape(-1).numpy(), rows, padded, lanes, values)
    return Panels(values, len(rows), len(columns), lanes)


def multiply_rows(matrix: Tensor, panels: Panels, out: Floats, first: int) -> None:
    """Write the products of rows with all columns to rows `first` and following of `out`.

    Args:
        matrix: (rows, n), contiguous float32 on the CPU.
        panels: the columns.
        out: from `Panels.products`; behind the columns, it gets values without meaning.
    """
    flat, width = matrix.detach().reshape(-1).numpy(), out.shape[1]
    kernel = multiply_panels if panels.lanes == LANES else multiply_narrow_panel
    kernel(flat, len(matrix), panels.n, panels.values, out.reshape(-1), width, first * width)


def as_columns(products: Floats, count: int) -> Tensor:
    """The products with the columns themselves, (m, count); in the same memory."""
    return torch.from_numpy(products)[:, :count]

"""Sparse matrices as kernels take them."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vqzoo.numerics.arrays import Floats, Ints, as_float32
from vqzoo.numerics.decoding.packed import code_bits
from vqzoo.numerics.kernels.panels.sparse import begin_rows

_ENTRIES = 256  # of a table that is looked up by bytes


class SparseArrays(NamedTuple):
    """Arguments of `kernels.panels.sparse.multiply_sparse_panels`, which says what they are."""

    gaps: NDArray[np.uint8]
    layout: tuple[int, int, int, int]
    values: tuple[NDArray[np.uint8], Floats, Floats]
    begins: Ints


@dataclass(frozen=True)
class SparseMatrix:
    """A matrix whose nonzeros are gaps apart, read row by row.

    Attributes:
        m: rows.
        gaps: uint8, from one nonzero to the next, as `coding.gaps` says; flat, or packed, see
            `decoding.packed`. All nonzeros lie in the matrix.
        width: of a gap in memory, 8 if it has an element for itself.
        filler: the gap that no nonzero follows.
        count: of gaps.
        values: of the nonzeros, float32; or their codes, uint8, with a table.
        table: (k,), float32, k at most 256.
    """

    m: int
    gaps: Tensor
    width: int
    filler: int
    count: int
    values: Tensor
    table: Tensor | None = None

    def arrays(self, n: int) -> SparseArrays:
        """The matrix, of n columns, for kernels."""
        gaps = self.gaps.contiguous().numpy()
        layout = (code_bits(self.width), len(gaps), self.filler, self.count)
        entries = np.zeros(0 if self.table is None else _ENTRIES, np.float32)
        if self.table is None:
            values = (np.zeros(1, np.uint8), entries, as_float32(self.values))
        else:
            entries[: len(self.table)] = as_float32(self.table)
            values = (self.values.contiguous().numpy(), entries, np.zeros(0, np.float32))
        begins = np.empty((self.m, 4), np.int64)
        begin_rows(gaps, layout, n, begins)
        return SparseArrays(gaps, layout, values, begins)

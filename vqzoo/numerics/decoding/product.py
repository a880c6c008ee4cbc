"""Products with a matrix that is made of codes of sub-vectors, which never exists as a whole.

x·Wᵀ is a sum over blocks of columns, and a block of a row of W is one of k centroids, or a sum of
some, one for each stage. For each block and stage, the products of x with centroids form a table
(Jégou, Douze, Schmid 2011, section III.B; Wu et al. 2016, arXiv 1512.06473, equation 7), and every
row of W adds the entry of its code: k·d multiplications and m additions in the place of m·d
multiplications. Codes of few bits that share a byte share an entry, too: a table of 256 sums. Where
k is large beside m, an input meets the centroids of the codes instead.
"""

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqzoo.numerics.accelerated.products import multiply_residual_on_device
from vqzoo.numerics.arrays import Floats, as_float32
from vqzoo.numerics.decoding.packed import flat_codes, run_length
from vqzoo.numerics.kernels.lines import LINE
from vqzoo.numerics.kernels.products.aligned import aligned_zeros
from vqzoo.numerics.kernels.products.byte_tables import HAS_BYTE_TABLES
from vqzoo.numerics.kernels.products.centroid_dots import ROWS, add_dots
from vqzoo.numerics.kernels.products.octets import OCTET
from vqzoo.numerics.kernels.products.table_sums import (
    ENTRIES,
    GROUP,
    add_octets_of,
    add_one,
    add_one_by_bytes,
)
from vqzoo.numerics.threads import run_pass_tasks

_TOGETHER = OCTET  # inputs that share the reading of codes
_ALONE = 1  # inputs that take less time one by one
_MOST = 8 * _TOGETHER  # inputs of a product by tables; more are faster by decoding
_FILLED = 8  # multiplications for a table in place of each row's addition
_SMALL = 1 << 18  # weights that are decoded sooner than multiplied by more than a few inputs
_ADDITIONS = 1 << 21  # a task
_DOTS = 1 << 17  # centroids that a task multiplies by
_LITTLE_ENDIAN = sys.byteorder == "little"


@dataclass(frozen=True)
class _Sizes:
    """The sizes of a product.

    Attributes:
        blocks: of columns, times stages.
        lines: of m bytes of codes; as many as blocks, unless codes share bytes.
        stages: centroids that a block is the sum of.
        m: rows of the matrix.
        k: centroids of a codebook.
        d: their length.
        width: bits of a code.
        shared: whether all blocks share the codebooks of the stages.
    """

    blocks: int
    lines: int
    stages: int
    m: int
    k: int
    d: int
    width: int
    shared: bool

    @property
    def entries(self) -> int:
        """Of a table: a power of two, so that no code is beyond it."""
        return max(ENTRIES, 1 << (self.k - 1).bit_length())


def multiply_residual(x: Tensor, codes: Tensor, codebooks: Tensor, width: int = 8) -> Tensor | None:
    """x·Wᵀ of the matrix that `decode_residual` would decode.

    Args:
        x: (r, s·d), float32; everything is on its device.
        codes: (s, stages, m), uint8 or int32, below k; or, if width is not 8, packed along blocks,
            see `decoding.packed`.
        codebooks: (s, stages, k, d), or (1, stages, k, d) where all blocks share them; float.
        width: bits of a code in memory: 1, 2, 4, 8 or 16.

    Returns:
        (r, m), float32, the same with any number of threads; None where decoding W is faster.

    Raises:
        ValueError: shapes or dtypes do not match.
    """
    lines, stages, m = codes.shape
    books, _, k, d = codebooks.shape
    s = x.shape[1] // d if x.dim() == 2 else -1
    fits = x.shape[-1] == s * d and books in (1, s) and stages == codebooks.shape[1]
    if not fits or lines != (s if width >= 8 else run_length(s, width, last=False)):
        raise ValueError(
            f"inputs of shape {tuple(x.shape)} do not fit codes of shape {tuple(codes.shape)} and "
            f"codebooks of shape {tuple(codebooks.shape)}"
        )
    if x.device.type != "cpu":
        return multiply_residual_on_device(x, codes, codebooks, width)
    sizes = _Sizes(s * stages, lines * stages, stages, m, k, d, width, books == 1)
    takes_tables = _takes(len(x), sizes)
    if not takes_tables and not _takes_dots(len(x), sizes):
        return None
    flat = flat_codes(codes)
    centroids = as_float32(codebooks)
    if not takes_tables:
        return torch.from_numpy(_by_dots(as_float32(x), flat, centroids, sizes))
    parts = x.split(1 if len(x) <= _ALONE else _TOGETHER)
    rows = [_by_tables(as_float32(part), flat, centroids, sizes) for part in parts]
    return torch.from_numpy(np.concatenate(rows)) if rows else x.new_empty(0, m)


def _takes(inputs: int, sizes: _Sizes) -> bool:
    """Whether tables take less time than decoding."""
    filling = sizes.entries if sizes.width < 8 else sizes.k * sizes.d
    if filling > _FILLED * sizes.m:
        return False
    weights = sizes.m * sizes.blocks * sizes.d
    return inputs <= (_MOST if weights > _SMALL else _TOGETHER)


def _takes_dots(inputs: int, sizes: _Sizes) -> bool:
    """Whether products with the centroid of each code take less time than decoding."""
    return inputs == _ALONE and sizes.shared and sizes.width >= 8 and sizes.d <= LINE


def _by_dots(x: Floats, codes: NDArray[Any], centroids: Floats, sizes: _Sizes) -> Floats:
    """The products of one input, (1, m)."""
    m, d, stages = sizes.m, sizes.d, sizes.stages
    parts = aligned_zeros(x.size // d * LINE).reshape(-1, LINE)
    parts[:, :d] = x.reshape(-1, d)
    books = np.concatenate([centroids.reshape(-1), np.zeros(LINE, np.float32)])
    shape = (len(parts), stages, m, sizes.k, d)
    sums = np.empty((1, m), np.float32)
    height = max(1, _DOTS // (sizes.blocks * ROWS)) * ROWS

    def work(start: int) -> None:
        stop = min(start + height, m)
        add_dots(parts.reshape(-1), codes, books, shape, start, stop, sums[0])

    run_pass_tasks(work, range(0, m, height))
    return sums


def _by_tables(x: Floats, codes: NDArray[Any], centroids: Floats, sizes: _Sizes) -> Floats:
    """The products of at most `_TOGETHER` inputs, (r, m)."""
    count, m, k = len(x), sizes.m, sizes.k
    lanes = 1 if count == 1 else _TOGETHER
    # An input is a column, so that a centroid meets all of them at once.
    columns = aligned_zeros(x.shape[1] * lanes).reshape(-1, lanes)
    columns[:, :count] = x.T
    by_words = codes.dtype == np.uint8 and m % 8 == 0 and _LITTLE_ENDIAN
    by_bytes = HAS_BYTE_TABLES and codes.dtype == np.uint8
    words = codes[: len(codes) if by_words else 0].view(np.uint64)
    if lanes == 1 and sizes.shared:
        centroids = np.ascontiguousarray(centroids.swapaxes(2, 3))
    width = max(GROUP, _ADDITIONS // (m * GROUP) * GROUP)
    books = (centroids.reshape(-1), sizes.shared, sizes.stages, k, sizes.d)
    book = (*books, sizes.width, sizes.entries)

    def work(start: int) -> Floats:
        sums = aligned_zeros(m * lanes)
        span = (sizes.blocks, sizes.lines, m, start, min(start + width, sizes.lines))
        if lanes > 1:
            add_octets_of(columns.reshape(-1), codes, words, book, span, sums)
        elif by_bytes:
            add_one_by_bytes(columns.reshape(-1), codes, book, span, sums)
        else:
            add_one(columns.reshape(-1), codes, words, book, span, sums)
        return sums

    sums, *rest = run_pass_tasks(work, range(0, sizes.lines, width))
    for more in rest:
        sums += more
    return sums.reshape(m, lanes).T[:count]

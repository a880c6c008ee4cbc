"""Products of a matrix with many columns, which meet its codes where they lie.

The matrix never exists, not even a part of it that memory would have to hold.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqzoo.numerics.arrays import Ints, as_float32
from vqzoo.numerics.decoding.packed import code_bits, flat_codes, in_line, run_length
from vqzoo.numerics.decoding.panel_product import Panels
from vqzoo.numerics.decoding.sparse import SparseMatrix
from vqzoo.numerics.kernels.feedback.trellis import SEGMENT
from vqzoo.numerics.kernels.lines import LINE
from vqzoo.numerics.kernels.panels.blocks import share_block_panels
from vqzoo.numerics.kernels.panels.dense import ROWS, share_panels
from vqzoo.numerics.kernels.panels.nibbles import (
    FEWEST_COLUMNS,
    FEWEST_ROWS,
    TASK_ROWS,
    share_bits,
    share_nibbles,
)
from vqzoo.numerics.kernels.panels.row_blocks import TOGETHER, share_row_block_panels
from vqzoo.numerics.kernels.panels.scalars import share_scalar_panels
from vqzoo.numerics.kernels.panels.sparse import share_sparse_panels
from vqzoo.numerics.kernels.panels.walks import share_walk_panels
from vqzoo.numerics.kernels.products.byte_tables import HAS_BYTE_TABLES, byte_planes, is_exact
from vqzoo.numerics.threads import run_kernel

_TASKS = 4  # or a multiple, where there are rows for them
_MULTIPLICATIONS = 1 << 25  # a task at most, unless it would have few rows
_ALONE = 1 << 23  # multiplications that take one thread less time than to share them
_ENTRIES = 256  # of a table that is looked up by bytes
_NONE = np.zeros(0, np.float32)
_NO_PLANES = np.zeros(0, np.uint8)


@dataclass(frozen=True)
class _Product:
    """A kernel that shares out the tasks of a product, and its operands: see `panels.tasks`."""

    share: Callable[..., None]
    operands: tuple[Any, ...]


@dataclass(frozen=True)
class CodedBlocks:
    """The codes of adjacent columns of a matrix, as `decode_residual` takes them.

    Attributes:
        codes: (s, stages, m), uint8, int16 (of which the bits count) or int32, below k; or packed
            along blocks, uint8, see `decoding.packed`.
        codebooks: (s, stages, k, d), or (1, stages, k, d) where all blocks share them; float.
        blocks: s.
        width: of a code in bits, if blocks share bytes.
    """

    codes: Tensor
    codebooks: Tensor
    blocks: int
    width: int = 8


@dataclass(frozen=True)
class CodedRowBlocks:
    """The codes of adjacent rows of a matrix, each for as many rows as centroids have values.

    Attributes:
        codes: (s, n), uint8, int16 (of which the bits count) or int32, below k; or packed along
            columns, uint8, see `decoding.packed`.
        codebooks: (s, k, d), or (1, k, d) where all blocks share them; float.
        width: of a code in bits, if columns share bytes.
    """

    codes: Tensor
    codebooks: Tensor
    width: int = 8

    @property
    def rows(self) -> int:
        """Their number, s·d."""
        return len(self.codes) * self.codebooks.shape[2]


def multiply_dense(matrix: Tensor, panels: Panels) -> Tensor:
    """W·X of floats, as a factor of a matrix may have.

    Args:
        matrix: W, (m, n), contiguous float32 on the CPU.
        panels: X, (n, count).

    Returns:
        (m, count), float32; the same with any number of threads.
    """
    product = _Product(share_panels, (matrix.detach().reshape(-1).numpy(),))
    return _by_rows([product], len(matrix), panels, None)


def multiply_coded_blocks(
    parts: Sequence[CodedBlocks], panels: Panels, scales: Tensor | None = None
) -> Tensor:
    """W·X with the matrix that `decode_residual` would decode, or that with its rows scaled.

    Args:
        parts: the codes of W, from the first columns to the last.
        panels: X, (n, count).
        scales: (m,), of rows.

    Returns:
        (m, count), float32; the same with any number of threads.

    Raises:
        ValueError: shapes do not match.
    """
    m = parts[0].codes.shape[2]
    products, column = [], 0
    for part in parts:
        products.append(_block_product(part, m, column))
        column += part.blocks * part.codebooks.shape[3]
    if column != panels.n:
        raise ValueError(f"codes of {column} columns do not fit inputs of {panels.n}")
    unit = TASK_ROWS if any(_takes_tables(part) for part in parts) else ROWS
    return _by_rows(products, m, panels, scales, unit)


def _takes_tables(part: CodedBlocks) -> bool:
    """Whether tables of sums take less time than the centroids themselves."""
    has_rows = part.codes.shape[2] >= FEWEST_ROWS
    return has_rows and part.width == 4 and part.codebooks.shape[3] >= FEWEST_COLUMNS


def _block_product(part: CodedBlocks, m: int, column: int) -> _Product:
    share = share_nibbles if _takes_tables(part) else share_block_panels
    return _Product(share, (*_described(part, m), (part.blocks, column), column > 0))


def _described(part: CodedBlocks, m: int) -> tuple[NDArray[Any], Any, Any]:
    """Codes, packing and book, as the kernel takes them."""
    lines, stages, rows = part.codes.shape
    books, _, k, d = part.codebooks.shape
    blocks = part.blocks
    held = blocks if part.width >= 8 else run_length(blocks, part.width, last=False)
    fits = rows == m and lines == held and books in (1, blocks)
    if not fits or stages != part.codebooks.shape[1]:
        raise ValueError(
            f"codes of shape {tuple(part.codes.shape)} for {blocks} blocks do not fit codebooks of "
            f"shape {tuple(part.codebooks.shape)}"
        )
    flat = flat_codes(part.codes)
    packing = (32, blocks, m) if part.width >= 8 else (part.width, lines, m)
    centroids = as_float32(part.codebooks).reshape(-1)
    if books == 1 and stages > 1:
        centroids = np.concatenate([centroids, np.zeros(LINE, np.float32)])
    return flat, packing, (centroids, books == 1, stages, k, d)


def multiply_coded_row_blocks(
    parts: Sequence[CodedRowBlocks], panels: Panels, scales: Tensor | None = None
) -> Tensor:
    """W·X with W[b·d + i, j] = C[codes[b, j]][i], or that with its rows scaled.

    Args:
        parts: the codes of W, from the first rows to the last.
        panels: X, (n, count).
        scales: (m,), of rows.

    Returns:
        (m, count), float32; the same with any number of threads.

    Raises:
        ValueError: shapes do not match.
    """
    results, m = [], 0
    for part in parts:
        of_rows = None if scales is None else scales[m : m + part.rows]
        product = _Product(share_row_block_panels, _described_rows(part, panels.n))
        results.append(_by_rows([product], part.rows, panels, of_rows, TOGETHER))
        m += part.rows
    return results[0] if len(results) == 1 else torch.cat(results)


def _described_rows(part: CodedRowBlocks, n: int) -> tuple[NDArray[Any], Any, Any]:
    """Codes, layout and book, as the kernel takes them."""
    blocks, run = part.codes.shape
    books, k, d = part.codebooks.shape
    held = n if part.width >= 8 else run_length(n, part.width, last=True)
    if run != held or books not in (1, blocks):
        raise ValueError(
            f"codes of shape {tuple(part.codes.shape)} for {n} columns do not fit codebooks of "
            f"shape {tuple(part.codebooks.shape)}"
        )
    layout = (code_bits(part.width), run)
    centroids = as_float32(part.codebooks).reshape(-1)
    return flat_codes(part.codes), layout, (centroids, books == 1, k, d)


def multiply_coded_scalars(
    codes: Tensor,
    width: int,
    table: Tensor,
    panels: Panels,
    zero: int | None = None,
    scales: Tensor | None = None,
    group: int = 0,
) -> Tensor:
    """W·X with W = table[codes], or those times the scales of their groups.

    Args:
        codes: (m, n), uint8, if width is 8; or packed along rows, see `decoding.packed`.
        width: bits of a code, 1, 2, 4 or 8.
        table: (k,), float; codes are below k.
        panels: X, (n, count).
        zero: the code of 0, if the table is that of the integers around it.
        scales: (m, groups), of the groups of a row, or (m, 1), of rows.
        group: adjacent columns that share a scale, a multiple of 16; if not given, all of a row.

    Returns:
        (m, count), float32; the same with any number of threads.

    Raises:
        ValueError: groups are not of multiples of 16 columns.
    """
    n = panels.n
    flat, run = codes.contiguous().view(-1).numpy(), codes.shape[1]
    if width < 8:
        values = (in_line(table), _NO_PLANES)
    elif zero is not None:
        values = (np.array([zero], np.float32), _NO_PLANES)
    else:
        entries = np.zeros(_ENTRIES, np.float32)
        entries[: len(table)] = as_float32(table)
        by_planes = HAS_BYTE_TABLES and is_exact(entries)
        values = (entries, byte_planes(entries) if by_planes else _NO_PLANES)
    if group % LINE:
        raise ValueError(f"groups of {group} columns are not a multiple of {LINE}")
    factors = as_float32(scales).reshape(-1) if group and scales is not None else _NONE

    of_rows = None if group or scales is None else scales[:, 0]
    if width == 1 and not len(factors) and len(codes) >= FEWEST_ROWS:
        product, unit = _Product(share_bits, (flat, run, values[0])), TASK_ROWS
    else:
        operands = (flat, (width, run), values, factors, group or n)
        product, unit = _Product(share_scalar_panels, operands), ROWS
    return _by_rows([product], len(codes), panels, of_rows, unit)


def multiply_walks(
    codes: Tensor,
    width: int,
    reach: int,
    panels: Panels,
    scales: Tensor,
    factors: Tensor | None = None,
) -> Tensor:
    """W·X with the levels of a trellis, their rows scaled; see `feedback.grid.levels`.

    Args:
        codes: (m, n), uint8, int16 (of which the bits count) or int32, if width is 8 or 16; or
            packed along rows, uint8, see `decoding.packed`.
        width: bits of a code in memory.
        reach: the code of 0.
        panels: X, (n, count).
        scales: (m,).
        factors: (n,), that columns are scaled by, too.

    Returns:
        (m, count), float32; the same with any number of threads.
    """
    layout = (code_bits(width), codes.shape[1])
    columns = _NONE if factors is None else as_float32(factors)
    operands = (flat_codes(codes), layout, np.int32(reach), columns)
    return _by_rows([_Product(share_walk_panels, operands)], len(codes), panels, scales, SEGMENT)


def multiply_sparse(matrix: SparseMatrix, panels: Panels) -> Tensor:
    """W·X with a sparse matrix, whose nonzeros alone are multiplied.

    Returns:
        (m, count), float32; the same with any number of threads.
    """
    product = _Product(share_sparse_panels, tuple(matrix.arrays(panels.n)))
    return _by_rows([product], matrix.m, panels, None)


def _by_rows(
    products: Sequence[_Product], m: int, panels: Panels, scales: Tensor | None, unit: int = ROWS
) -> Tensor:
    """(m, count): the sum of some products, times the scales of rows. Tasks are of multiples of
    `unit` rows."""
    out, count = panels.products(m), panels.count
    result, height = torch.empty(m, count), _height(m, panels, unit)
    factors = np.ones(1, np.float32) if scales is None else as_float32(scales)
    for product in products:
        ends = result.numpy().reshape(-1) if product is products[-1] else _NONE
        target = (out.reshape(-1), out.shape[1], (ends, count, factors))
        _share(product, (m, height), panels, target)
    return result


def _share(product: _Product, bounds: tuple[int, int], panels: Panels, target: Any) -> None:
    both = (panels.wide, panels.narrow)

    def share(team: Ints) -> None:
        product.share(team, bounds, product.operands, both, panels.n, target)

    run_kernel(share, -(-bounds[0] // bounds[1]))


def _height(m: int, panels: Panels, unit: int) -> int:
    """The rows of a task."""
    multiplications = m * (panels.wide.size + panels.narrow.size)
    tasks = -(-multiplications // (_TASKS * _MULTIPLICATIONS)) * _TASKS
    tasks = 1 if multiplications <= _ALONE else tasks
    return -(-m // (tasks * unit)) * unit

"""The division of a matrix into blocks of sub-vectors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vqzoo.numerics.arrays import code_dtype

Axis = Literal["columns", "rows"]
CodebookScope = Literal["block", "layer"]


@dataclass(frozen=True)
class Cut:
    """The division of an m × n matrix into sub-vectors of length d along one axis.

    Attributes:
        points: sub-vectors in a block: m if columns are cut, n if rows are.
        blocks: number of whole blocks.
        d: their sub-vector length.
        tail: length of the shorter last block, 0 if d divides the axis.
    """

    points: int
    blocks: int
    d: int
    tail: int

    @property
    def widths(self) -> tuple[tuple[int, int], ...]:
        """(number of blocks, sub-vector length) of the whole blocks and of the tail, if any."""
        whole = ((self.blocks, self.d),) if self.blocks * self.d else ()
        return (*whole, (1, self.tail)) if self.tail else whole

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The suffixes of the names of their parts: "" for whole blocks, "_tail" for the tail."""
        whole = ("",) if self.blocks else ()
        return (*whole, "_tail") if self.tail else whole


@dataclass(frozen=True)
class Group:
    """Sub-vectors of one length: those of the whole blocks, or of the tail.

    Attributes:
        books: number of their codebooks.
        k: centroids of each codebook, at most the number of its sub-vectors.
        d: sub-vector length.
        count: number of sub-vectors in all blocks.
    """

    books: int
    k: int
    d: int
    count: int

    @property
    def paper_bits(self) -> float:
        """Bits by Gong et al.'s formula: 32 for each value of a codebook, log2 k for each code."""
        return 32 * self.k * self.books * self.d + self.count * math.log2(self.k)


def codebook_groups(shape: Cut, k: int, scope: CodebookScope) -> list[Group]:
    """The groups of a cut matrix whose codebooks are to have k centroids."""
    groups = []
    for blocks, d in shape.widths:
        books = blocks if scope == "block" else 1
        count = shape.points * blocks
        groups.append(Group(books, min(k, count // books), d, count))
    return groups


def empty_codes(
    shape: Cut, sizes: Sequence[int], device: torch.device, *inner: int
) -> list[Tensor]:
    """Zeros, (blocks, *inner, points), for codes below each of `sizes`: those of the whole blocks
    and of the tail."""
    return [
        torch.zeros(blocks, *inner, shape.points, dtype=code_dtype(size), device=device)
        for (blocks, _), size in zip(shape.widths, sizes, strict=True)
    ]


def cut(m: int, n: int, d: int, axis: Axis) -> Cut:
    """Cut the columns (or rows) of an m × n matrix into blocks of d."""
    points, length = (m, n) if axis == "columns" else (n, m)
    return Cut(points, length // d, d, length % d)


def block_points(
    matrix: Tensor, d: int, axis: Axis, scope: CodebookScope, sizes: Tensor | None = None
) -> list[Tensor]:
    """The sub-vectors, dimension-major: one (batch, d, points) tensor for the whole blocks and one
    for the tail. They are copies, together of the size of the matrix.

    With a codebook for each block, each block is a problem of the batch; with one for the layer,
    all blocks form a single problem. The tail, being shorter, is always a separate problem. The
    rows of the matrix are divided by `sizes`, (m, 1).
    """
    divisors = None if sizes is None else sizes.expand_as(matrix)
    if axis == "columns":
        matrix, divisors = matrix.T, None if divisors is None else divisors.T
    length, points = matrix.shape
    groups, start = [], 0
    for blocks, width in ((length // d, d), (1, length % d)):
        if not blocks * width:
            continue
        joined = scope == "layer"
        group = matrix.new_empty(
            (width, blocks, points) if joined else (blocks, width, points),
        )
        target = group.transpose(0, 1) if joined else group
        stop = start + blocks * width
        source = matrix[start:stop].unflatten(0, (blocks, width))
        if divisors is None:
            target.copy_(source)
        else:
            torch.div(source, divisors[start:stop].unflatten(0, (blocks, width)), out=target)
        groups.append(group.view(1, width, -1) if joined else group)
        start = stop
    return groups


def by_groups(points: Tensor, groups: int) -> Tensor:
    """Points (blocks, d, m) as (blocks·groups, d, m / groups), the groups being runs of rows."""
    return points.unflatten(2, (groups, -1)).transpose(1, 2).flatten(0, 1).contiguous()


def points_per_codebook(m: int, n: int, d: int, axis: Axis, scope: CodebookScope) -> int:
    """The number of sub-vectors of each codebook, not counting the tail's (unless it is alone)."""
    shape = cut(m, n, d, axis)
    if not shape.blocks:
        return shape.points
    return shape.points * (shape.blocks if scope == "layer" else 1)

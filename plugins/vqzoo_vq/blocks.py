"""Cutting a matrix into blocks of sub-vectors, and putting it together again."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Axis = Literal["columns", "rows"]
CodebookScope = Literal["block", "layer"]


@dataclass(frozen=True)
class Cut:
    """How an m × n matrix falls into sub-vectors of length d along one axis.

    Attributes:
        points: sub-vectors in a block: m when columns are cut, n when rows are.
        blocks: whole blocks.
        d: their sub-vector length.
        tail: length of the shorter last block, 0 where d divides.
    """

    points: int
    blocks: int
    d: int
    tail: int

    @property
    def widths(self) -> tuple[tuple[int, int], ...]:
        """(number of blocks, sub-vector length) of the whole blocks and of the tail."""
        return tuple(pair for pair in ((self.blocks, self.d), (1, self.tail)) if pair[0] * pair[1])

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of the names of their parts: none for the whole blocks, `_tail` for the tail."""
        named = (("", self.blocks), ("_tail", self.tail))
        return tuple(suffix for suffix, present in named if present)


@dataclass(frozen=True)
class Group:
    """Sub-vectors of one length: the whole blocks, or the tail.

    Attributes:
        books: codebooks they have.
        k: centroids of each, at most the sub-vectors that it serves.
        d: sub-vector length.
        count: sub-vectors, of all blocks together.
    """

    books: int
    k: int
    d: int
    count: int

    @property
    def paper_bits(self) -> float:
        """Bits as Gong et al. count them: 32 a number of a codebook, log2 k a code."""
        return 32 * self.k * self.books * self.d + self.count * math.log2(self.k)


def codebook_groups(shape: Cut, k: int, scope: CodebookScope) -> list[Group]:
    """The groups of a cut matrix whose codebooks were asked for k centroids."""
    groups = []
    for blocks, d in shape.widths:
        books = blocks if scope == "block" else 1
        count = shape.points * blocks
        groups.append(Group(books, min(k, count // books), d, count))
    return groups


def cut(m: int, n: int, d: int, axis: Axis) -> Cut:
    """Cut the columns (or rows) of an m × n matrix into blocks of d."""
    points, length = (m, n) if axis == "columns" else (n, m)
    return Cut(points, length // d, d, length % d)


def block_points(
    matrix: Tensor, d: int, axis: Axis, scope: CodebookScope, sizes: Tensor | None = None
) -> list[Tensor]:
    """The sub-vectors, dimension-major: one (batch, d, points) tensor for the whole blocks and one
    for the tail; copies, of the matrix's size together.

    A codebook for each block makes each a problem of its own; one for the layer joins them into a
    single problem, block by block. The tail, being shorter, always has its own. `sizes`, (m, 1),
    divide the matrix's rows.
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
        place = group.transpose(0, 1) if joined else group
        stop = start + blocks * width
        source = matrix[start:stop].unflatten(0, (blocks, width))
        if divisors is None:
            place.copy_(source)
        else:
            torch.div(source, divisors[start:stop].unflatten(0, (blocks, width)), out=place)
        groups.append(group.view(1, width, -1) if joined else group)
        start = stop
    return groups


def points_per_codebook(m: int, n: int, d: int, axis: Axis, scope: CodebookScope) -> int:
    """Sub-vectors that the smallest whole codebook of a layer is trained on."""
    shape = cut(m, n, d, axis)
    if not shape.blocks:
        return shape.points
    return shape.points * (shape.blocks if scope == "layer" else 1)

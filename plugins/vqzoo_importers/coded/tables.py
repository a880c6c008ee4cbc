"""Weights that are entries of a small table, as codes of km, pq or rtn."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from vqzoo.plugin import Code, Floats, Indices, MethodCode, stored_bits
from vqzoo.plugin.limits import MAX_CARDINALITY
from vqzoo_importers.coded.vectors import exact_floats, vector_parts

Shape = tuple[int, ...]
Products = Literal["float32", "float16", "bfloat16"]
_HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class TableTensor:
    """A tensor whose value at each place is table[index], times scale[scale_index] if scales are
    given, rounded once to float32, or to a half precision.

    Reshaping and transposing change the indices alone.

    Attributes:
        table: (entries,) floats; codebooks of vectors are flattened.
        index: integers of the tensor's shape.
        width: entries of the table that form a vector: 1 for a codebook of scalars.
        tail: where the shorter vectors of a last block begin in the table; None without such.
        scale: (count,) float32; None without scales.
        scale_index: integers of the tensor's shape.
        products: the dtype to which products are rounded.
    """

    table: NDArray[Any]
    index: NDArray[Any]
    width: int = 1
    scale: NDArray[np.float32] | None = None
    scale_index: NDArray[Any] | None = None
    products: Products = "float32"
    tail: int | None = None

    @property
    def shape(self) -> Shape:
        """The tensor's shape."""
        return self.index.shape

    def moved(self, move: Callable[[NDArray[Any]], NDArray[Any]]) -> "TableTensor":
        """The tensor with its values at the places where a function of arrays puts them."""
        scales = None if self.scale_index is None else move(self.scale_index)
        return replace(self, index=move(self.index), scale_index=scales)

    def reshape(self, shape: Shape) -> "TableTensor":
        """The tensor in another shape."""
        return self.moved(lambda array: array.reshape(shape))

    def transpose(self, axes: Shape) -> "TableTensor":
        """The tensor with its axes in another order."""
        return self.moved(lambda array: array.transpose(axes))

    def times(self, scale: NDArray[np.float32]) -> "TableTensor":
        """The tensor, which has no scales yet, times an array that is broadcast to its shape."""
        values, places = np.unique(scale, return_inverse=True)  # it may have been expanded before
        spread = np.broadcast_to(places.reshape(scale.shape), self.shape)
        return replace(self, scale=values, scale_index=spread)

    def values(self) -> NDArray[np.float32]:
        """The tensor's values."""
        values = self.table.astype(np.float32)[self.index]
        if self.scale is not None:
            values = self._products(values, self.scale[self.scale_index])
        return values

    def without_scales(self) -> "TableTensor":
        """The tensor with a table of its own for each scale."""
        if self.scale is None or self.scale_index is None:
            return self
        products = self._products(self.table.astype(np.float32), self.scale[:, None])
        index = self.index + self.scale_index * self.table.size
        return TableTensor(products.reshape(-1), index, self.width if self.tail is None else 1)

    def _products(
        self, values: NDArray[np.float32], scales: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        with np.errstate(over="ignore", invalid="ignore"):  # infinite values are refused later
            products = values * scales
            if self.products == "float32":
                return products
            return torch.from_numpy(products).to(_HALVES[self.products]).float().numpy()


def table_code(tensor: TableTensor) -> MethodCode | None:
    """The code of a tensor as a matrix, all axes but the first flattened; None if no method here
    has such codes, or they are larger than the weight."""
    code = _code_of_matrix(tensor.reshape((tensor.shape[0], -1)))
    dense = (32 if tensor.products == "float32" else 16) * tensor.index.size
    return None if code is None or stored_bits(code.code) >= dense else code


def _code_of_matrix(matrix: TableTensor) -> MethodCode | None:
    if matrix.scale is not None and np.unique(matrix.scale).size == 1:
        one = replace(
            matrix, scale=np.unique(matrix.scale), scale_index=np.zeros_like(matrix.index)
        )
        matrix = one.without_scales()  # rounds as each product does
    if matrix.width > 1:
        return _vectors(matrix) or _smaller(_scalars(matrix), _scalars_of_lines(matrix))
    if matrix.products != "float32":
        if matrix.scale is not None and matrix.table.size * matrix.scale.size <= matrix.index.size:
            return _smaller(_grid(matrix), _scalars_of_lines(matrix.without_scales()))
        return _grid(matrix)
    return _grid(matrix) or _smaller(_scalars(matrix), _scalars_of_lines(matrix))


def _vectors(matrix: TableTensor) -> MethodCode | None:
    """pq, where vectors of the table lie along rows or columns."""
    scale = row_scale(matrix.scale, matrix.scale_index)
    if matrix.scale is not None and scale is None:
        return None
    for axis, index in (("columns", matrix.index), ("rows", matrix.index.T)):
        parts = vector_parts(index[None], matrix.table, matrix.width, matrix.tail)
        if parts is not None:
            facts: dict[str, int | float | str | bool] = {"d": matrix.width, "axis": axis}
            return MethodCode("pq", Code(_shape(matrix), _one_stage(parts) | (scale or {}), facts))
    return None


def _scalars(matrix: TableTensor) -> MethodCode | None:
    """km, with the entries that are used."""
    scale = row_scale(matrix.scale, matrix.scale_index)
    used, codes = np.unique(matrix.index, return_inverse=True)
    if used.size > MAX_CARDINALITY or (matrix.scale is not None and scale is None):
        return None
    parts: dict[str, Indices | Floats] = {
        "codes": Indices(torch.from_numpy(codes.reshape(matrix.shape)), used.size),
        "codebook": exact_floats(matrix.table[used]),
    }
    return MethodCode("km", Code(_shape(matrix), parts | (scale or {})))


def _scalars_of_lines(matrix: TableTensor) -> MethodCode | None:
    """pq with vectors of one value and a table for each row, or for each column, of the entries
    that it has."""
    scale = row_scale(matrix.scale, matrix.scale_index)
    if not matrix.index.size or (matrix.scale is not None and scale is None):
        return None
    rows = _line_tables(matrix, matrix.index, "rows", scale or {})
    return _smaller(rows, _line_tables(matrix, matrix.index.T, "columns", scale or {}))


def _line_tables(
    matrix: TableTensor, index: NDArray[Any], axis: str, scale: dict[str, Indices | Floats]
) -> MethodCode | None:
    lines = [np.unique(line, return_inverse=True) for line in index]
    k = max(len(used) for used, _ in lines)
    if k > MAX_CARDINALITY or k * len(lines) > index.size:
        return None
    books = np.stack([np.pad(used, (0, k - len(used)), mode="edge") for used, _ in lines])
    codes = torch.from_numpy(np.stack([codes for _, codes in lines]))
    parts: dict[str, Indices | Floats] = {
        "codes": Indices(codes, k),
        "codebook": exact_floats(matrix.table[books][..., None]),
    }
    return MethodCode("pq", Code(_shape(matrix), parts | scale, {"d": 1, "axis": axis}))


def _smaller(first: MethodCode | None, second: MethodCode | None) -> MethodCode | None:
    """The code that takes fewer bits at fixed width."""
    codes = [code for code in (first, second) if code is not None]
    return min(codes, key=lambda compressed: stored_bits(compressed.code), default=None)


def _grid(matrix: TableTensor) -> MethodCode | None:
    """rtn, where the entries are integers, with a scale for each row or for groups of columns."""
    if matrix.scale is None or matrix.scale_index is None:
        return None
    integers = matrix.table.astype(np.float64)
    if not np.array_equal(integers, np.round(integers)):
        return None
    codes = integers[matrix.index].astype(np.int64)
    top, symbols = int(np.abs(codes).max()), np.unique(codes).size
    group = _group(matrix.scale_index)
    by_rows = group == matrix.shape[1]
    narrow = (2 * top).bit_length() <= max(1, (symbols - 1).bit_length())
    if group is None or 2 * top + 1 > MAX_CARDINALITY:
        return None
    if by_rows and not narrow and matrix.products == "float32":
        return None  # km is smaller
    scales = matrix.scale[matrix.scale_index[:, ::group]]
    parts: dict[str, Indices | Floats] = {
        "codes": Indices(torch.from_numpy(codes + top), 2 * top + 1),
        "scale": exact_floats(scales),
    }
    facts: dict[str, int | float | str | bool] = {"group": group}
    if matrix.products != "float32":
        facts["products"] = matrix.products
    return MethodCode("rtn", Code(_shape(matrix), parts, facts))


def _group(scale_index: NDArray[Any]) -> int | None:
    """The number of columns that share their scales, if all groups but the last have it."""
    n = scale_index.shape[1]
    changes = np.flatnonzero((np.diff(scale_index, axis=1) != 0).any(0)) + 1
    group = int(changes[0]) if changes.size else n
    spread = np.repeat(scale_index[:, ::group], group, axis=1)[:, :n]
    return group if np.array_equal(spread, scale_index) else None


def row_scale(
    scale: NDArray[np.float32] | None, index: NDArray[Any] | None
) -> dict[str, Indices | Floats] | None:
    """The part `scale`; None without scales, and where a row of the matrix has several."""
    if scale is None or index is None or (index != index[:, :1]).any():
        return None
    return {"scale": exact_floats(scale[index[:, 0]])}


def _one_stage(parts: dict[str, Indices | Floats]) -> dict[str, Indices | Floats]:
    """The parts of a code of pq, by those of a code of rq with one stage."""
    single: dict[str, Indices | Floats] = {}
    for name, part in parts.items():
        if isinstance(part, Indices):
            single[name] = Indices(part.values[:, 0], part.cardinality)
        else:
            single[name] = Floats(part.stored[:, 0])
    return single


def unpack_bits(data: NDArray[np.uint8], bits: int, count: int) -> NDArray[Any]:
    """Integers of a few bits, the lowest bit of the first one first: uint8."""
    planes = np.unpackbits(data, bitorder="little", count=count * bits).reshape(count, bits)
    return np.packbits(planes, axis=1, bitorder="little")[:, 0]


def _shape(matrix: TableTensor) -> tuple[int, int]:
    return matrix.shape[0], matrix.shape[1]

"""Weights as Core ML decodes them: codes of a table, or integers, times scales."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqzoo.plugin import LookUp

Array = NDArray[Any]
Shape = tuple[int, ...]
# Codes have one of these widths: Core ML has none of 5 or 7 bits, and none beyond 8.
WIDTHS = (1, 2, 3, 4, 6, 8)
_MOST = 256
_LEAST_NORMAL = 2.0**-14  # of float16
# Values of a row, divided by the row's largest, that differ by less are one value.
_RESOLUTION = 2.0**-16


@dataclass(frozen=True)
class Palette:
    """Entries of a table, times scales, as `constexpr_lut_to_dense` of iOS 18 has them.

    Attributes:
        codes: uint8 below 2^bits, of the weight's shape, divided by d along `axis`.
        bits: of a code, one of `WIDTHS`.
        table: float16, or int8 (tables of each axis..., 2^bits, d).
        axis: along which vectors of d > 1 lie; None for scalars.
        scale: float16 (scales of each axis...); None without scales.
        table_scale: float16 (tables of each axis..., 1, 1), of a table of int8; None of one of
            float16.
    """

    codes: Array
    bits: int
    table: Array
    axis: int | None
    scale: Array | None
    table_scale: Array | None = None

    @property
    def integers(self) -> Array | None:
        """int8 of the weight's shape, if the table is a grid of 4 or 8 bits, and has scales."""
        values = self.table.reshape(-1)
        whole = self.scale is not None and self.table.size == 1 << self.bits
        if not whole or self.bits not in (4, 8) or (values != np.round(values)).any():
            return None
        half = 1 << (self.bits - 1)
        if values.min() < -half or values.max() >= half:
            return None
        return values.astype(np.int8)[self.codes]


def palette(form: LookUp, shape: Shape) -> Palette | str:
    """The palette of a weight of a shape; or why there is none."""
    _, k, d = form.table.shape
    if k > _MOST:
        return f"tables have at most {_MOST} entries, not {k}"
    scale = None if form.scale is None else _scale(form.scale, form.group, shape)
    if isinstance(scale, str):
        return scale
    table, scale = _halves(form.table.numpy(), scale)
    if not np.isfinite(table).all() or (scale is not None and not np.isfinite(scale).all()):
        return "float16 cannot hold its values"
    bits = next(width for width in WIDTHS if k <= 1 << width)
    # Places that no code names repeat the last entry: a grid stays one.
    padded = np.pad(table, ((0, 0), (0, (1 << bits) - k), (0, 0)), mode="edge")
    codes = form.codes.to(torch.uint8).numpy()
    vectors = _along_rows(codes, padded, shape) if form.by_rows else None
    if vectors is None and not form.by_rows:
        vectors = _along_columns(codes, padded, shape, bits)
    if vectors is None:
        return f"vectors of {d} do not lie along one axis, and scalars would take no less"
    return Palette(vectors[0], bits, vectors[1], vectors[2], scale)


def with_int8_table(stored: Palette) -> Palette:
    """A palette whose tables have int8 entries and a scale each, rounded to the nearest.

    Grids of integers stay as they are, and so do tables whose scales float16 would hold coarsely.
    """
    if stored.integers is not None:
        return stored
    table = stored.table.astype(np.float32)
    peak = np.abs(table).max((-2, -1), keepdims=True)
    scale = (np.where(peak > 0, peak, 127.0) / 127.0).astype(np.float16)
    if (scale < _LEAST_NORMAL).any():
        return stored
    entries = np.round(table / scale.astype(np.float32)).clip(-127, 127).astype(np.int8)
    return replace(stored, table=entries, table_scale=scale)


def palette_of_values(weight: Tensor) -> LookUp | None:
    """A table of the values of a matrix (m, n), or of its rows' values divided by their largest
    magnitude: the one with fewer entries, if it has at most 256."""
    values, codes = torch.unique(weight, return_inverse=True)
    peak = weight.double().abs().amax(1, keepdim=True)
    relative = weight.double() / peak.where(peak > 0, 1.0)
    shared, shared_codes = torch.unique((relative / _RESOLUTION).round(), return_inverse=True)
    if min(len(values), len(shared)) > _MOST:
        return None
    if len(values) <= len(shared):
        return LookUp(codes, values.reshape(1, -1, 1))
    table = (shared * _RESOLUTION).float().reshape(1, -1, 1)
    return LookUp(shared_codes, table, scale=peak.float(), group=weight.shape[1])


def _halves(table: Array, scale: Array | None) -> tuple[Array, Array | None]:
    """Both in float16; small scales take a power of two from the table."""
    with np.errstate(over="ignore"):
        if scale is None:
            return table.astype(np.float16), None
        peak = float(np.abs(scale).max())
        small = ((scale != 0) & (np.abs(scale) < _LEAST_NORMAL)).any()
        power = 2.0 ** -math.frexp(peak)[1] if peak and (small or peak > 2.0**15) else 1.0
        return (table / power).astype(np.float16), (scale * power).astype(np.float16)


def _scale(scale: Tensor, group: int, shape: Shape) -> Array | str:
    """Scales (m or 1, groups) of the columns as blocks of the weight's axes."""
    rows, groups = scale.shape
    inner = math.prod(shape[2:])
    if groups == 1:
        return scale.numpy().reshape(rows, *[1] * (len(shape) - 1))
    if group % inner or shape[1] % (group // inner):
        return f"scales of {group} columns are no blocks of the weight's axes"
    return scale.numpy().reshape(rows, groups, *[1] * (len(shape) - 2))


def _along_rows(codes: Array, table: Array, shape: Shape) -> tuple[Array, Array, int | None] | None:
    books, k, d = table.shape
    rank = len(shape)
    tables = table.reshape(books, *[1] * (rank - 1), k, d)
    return codes.reshape(shape[0] // d, *shape[1:]), tables, None if d == 1 else 0


def _along_columns(
    codes: Array, table: Array, shape: Shape, bits: int
) -> tuple[Array, Array, int | None] | None:
    """Vectors along the one axis that they lie on; otherwise scalars, with a table for each place
    in a vector."""
    books, k, d = table.shape
    inner = shape[1:]
    axis = next((a for a in range(len(shape) - 1, 0, -1) if shape[a] > 1), len(shape) - 1)
    if shape[axis] % d == 0 or d == 1:
        places = list(shape)
        places[axis] //= d
        blocks = places[1:] if books > 1 else [1] * len(inner)
        return codes.reshape(places), table.reshape(1, *blocks, k, d), None if d == 1 else axis
    per_column = np.swapaxes(table, 1, 2).reshape(-1, k)  # (books·d, k)
    columns, kernel = math.prod(inner), math.prod(inner[1:])
    scalars = np.repeat(codes, d, axis=1).reshape(shape)
    if books == 1 and kernel % d == 0:
        tables = np.tile(per_column, (kernel // d, 1)).reshape(1, 1, *inner[1:], k, 1)
    else:
        tables = np.tile(per_column, (columns // len(per_column), 1)).reshape(1, *inner, k, 1)
    if scalars.size * bits // 8 + tables.nbytes >= 2 * scalars.size:
        return None
    return scalars, tables, None

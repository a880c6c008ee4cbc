"""Integers, and floats of 8 bits, times scales, as tables of their values."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqzoo_importers.coded.tables import Products, TableTensor

Array = NDArray[Any]
MOST_LEVELS = 1 << 16  # of a grid whose values are a table
_SCALES = (np.float32, np.float16)
_EXACT = {
    "float32": 1 << 24,
    "float16": 1 << 11,
    "bfloat16": 1 << 8,
}  # up to which a dtype holds all integers


def integers_times(
    codes: Array, scale: Array, zero: Array | None, axis: int, block: int
) -> TableTensor | None:
    """Integers, less their zero points, times their scales, rounded once to the scales' dtype.

    Args:
        codes: integers; or floats of at most eight bits, which have no zero points.
        scale: one; one for each index along the axis; or, of the codes' rank, one for each block.
        zero: None, or as many as scales, or one.
        axis: along which scales differ.
        block: consecutive indices along the axis that share a scale; 0 without blocks.

    Returns:
        The tensor; None where the entries of a table would be too many, or scales are neither
        float32 nor float16.
    """
    if scale.dtype not in _SCALES or codes.dtype.kind not in "iuV" or not codes.size:
        return None
    count = _spread(np.arange(scale.size).reshape(scale.shape), codes.shape, axis, block)
    if codes.dtype.kind == "V" and codes.dtype.name.startswith(("float", "bfloat")):
        if codes.dtype.itemsize > 1 or (zero is not None and zero.astype(np.float32).any()):
            return None
        scales = scale.astype(np.float32).reshape(-1)
        return floats_times(codes.astype(np.float32), scales, count, products_of(scale))
    integers = codes.astype(np.int64)
    if zero is not None:
        integers -= (
            zero.astype(np.int64).reshape(-1)[count] if zero.size > 1 else int(zero.reshape(-1)[0])
        )
    return grid(integers, scale, count)


def grid(integers: Array, scale: Array, scale_index: Array) -> TableTensor | None:
    """Integers times scales, rounded once to the scales' dtype.

    Args:
        integers: int64, of any shape.
        scale: floats.
        scale_index: of the integers' shape, which of the scales each has.

    Returns:
        The tensor; None where there are no integers, the entries of a table would be too many,
        float32 does not hold each of them, or scales are neither float32 nor float16.
    """
    if scale.dtype not in _SCALES or not integers.size:
        return None
    low, high = int(integers.min()), int(integers.max())
    if high - low >= MOST_LEVELS or not are_exact(integers, "float32"):
        return None
    table = np.arange(low, high + 1).astype(np.float32)
    index, scales = (integers - low).astype(np.int32), scale.astype(np.float32).reshape(-1)
    spread = scale_index.astype(np.int32)
    return TableTensor(table, index, 1, scales, spread, products_of(scale))


def products_of(scale: Array) -> Products:
    """The dtype of products with scales that are float32 or float16."""
    return "float16" if scale.dtype == np.float16 else "float32"


def are_exact(integers: Array, dtype: Products) -> bool:
    """Whether a dtype holds each of these integers, so that a library that computes in
    that dtype subtracts zero points without rounding."""
    return int(np.abs(integers).max(initial=0)) <= _EXACT[dtype]


def floats_times(
    values: NDArray[np.float32], scales: NDArray[np.float32], scale_index: Array, products: Products
) -> TableTensor:
    """Floats of which few differ, as those of eight bits, times scales.

    Args:
        values: of any shape.
        scales: (count,).
        scale_index: of the values' shape, which of the scales each has.
        products: the dtype to which products are rounded.
    """
    table, index = np.unique(values, return_inverse=True)
    places = index.reshape(values.shape).astype(np.int32)
    return TableTensor(table, places, 1, scales, scale_index, products)


def _spread(count: Array, shape: tuple[int, ...], axis: int, block: int) -> Array:
    """For each element of a tensor, which of its scales it has."""
    if count.size == 1:
        return np.zeros(shape, dtype=np.int32)
    axis %= len(shape)
    if block:
        count = np.take(count, np.arange(shape[axis]) // block, axis=axis)
    elif count.ndim == 1:
        count = count.reshape([-1 if place == axis else 1 for place in range(len(shape))])
    return np.broadcast_to(count, shape).astype(np.int32)

"""Codes of few bits as they are kept in memory while a network runs from them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vqzoo.numerics.accelerated.products import multiply_scalars_on_device
from vqzoo.numerics.decoding.column_products import (
    CodedRowBlocks,
    multiply_coded_row_blocks,
    multiply_coded_scalars,
)
from vqzoo.numerics.decoding.decode import decode_scalar
from vqzoo.numerics.decoding.packed import decode_packed, pack, unpack, width_of
from vqzoo.numerics.decoding.panel_product import Panels
from vqzoo.numerics.decoding.scalar_product import multiply_scalars, takes_inputs
from vqzoo.plugin.code import Indices

_TILE = 1 << 18  # values that are decoded at a time, 1 MiB of float32
_NARROW = 64  # columns; products with fewer take long


@dataclass(frozen=True, init=False)
class PackedIndices(Indices):
    """Integer codes that share bytes; `values` unpacks them.

    Attributes:
        packed: see `vqzoo.numerics.decoding.packed`.
        width: bits of a code, 1, 2 or 4; or 16.
        axis: that codes share bytes along, counted from the first one.
        length: of that axis before it was packed.
    """

    packed: Tensor
    width: int
    axis: int
    length: int

    def __init__(
        self, packed: Tensor, cardinality: int, width: int, axis: int, length: int
    ) -> None:
        fields: dict[str, Any] = {
            "packed": packed,
            "cardinality": cardinality,
            "width": width,
            "axis": axis,
            "length": length,
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the codes."""
        sizes = list(self.packed.shape)
        sizes[self.axis] = self.length
        return tuple(sizes)

    @property  # type: ignore[misc]  # a field of codes that are not packed
    def values(self) -> Tensor:
        """The codes, unpacked anew: uint8, or int32 above 256 symbols."""
        return unpack(self.packed, self.width, self.axis, self.length)

    def narrow(self, axis: int, start: int, stop: int) -> Indices:
        """The codes from `start` to `stop` - 1 along an axis; packed, if it is another one."""
        if axis == self.axis and self.width < 8:
            return Indices(self.values, self.cardinality).narrow(axis, start, stop)
        length = stop - start if axis == self.axis else self.length
        part = self.packed.narrow(axis, start, stop - start)
        return PackedIndices(part, self.cardinality, self.width, self.axis, length)

    def to(self, device: torch.device) -> Indices:
        """The same codes on a device."""
        packed = self.packed.to(device)
        return PackedIndices(packed, self.cardinality, self.width, self.axis, self.length)

    def as_read(self) -> Indices:
        """The codes, unpacked."""
        return Indices(self.values, self.cardinality).as_read()


def packed_indices(part: Indices, axis: int) -> Indices:
    """Pack codes along an axis; those of five to eight bits stay as they are."""
    width = width_of(part.cardinality)
    if width == 8 or not part.values.dim():
        return part
    axis %= part.values.dim()
    packed = pack(part.values, width, axis)
    return PackedIndices(packed, part.cardinality, width, axis, part.values.shape[axis])


def held_codes(part: Indices) -> tuple[Tensor, int]:
    """Codes as they are in memory, and their width: 8 if each has an element for itself."""
    return (part.packed, part.width) if isinstance(part, PackedIndices) else (part.values, 8)


def held_blocks(part: Indices, device: torch.device) -> tuple[Tensor, int]:
    """Codes that `decode_pq` and `decode_residual` read, and their width: packed along the first
    axis as they are in memory if the kernels of the device read that, otherwise unpacked."""
    if device.type != "cpu" or not isinstance(part, PackedIndices):
        return part.values, 8
    return (part.packed, part.width) if part.width < 8 and part.axis == 0 else (part.values, 8)


def decode_table(part: Indices, table: Tensor, out: Tensor) -> Tensor:
    """Fill a contiguous float32 `out` (m, n) with table[codes], codes packed along rows or not."""
    if isinstance(part, PackedIndices) and part.width < 8 and out.device.type == "cpu":
        return decode_packed(part.packed, part.width, table, out)
    return decode_scalar(part.values, table, out)


def multiply_table(
    part: Indices, table: Tensor, x: Tensor, zero: int | None = None
) -> Tensor | None:
    """x·Wᵀ with W = table[codes], codes packed along rows or not; see `multiply_scalars`.

    Returns:
        (r, m); None where decoding W is faster, or codes have more than 8 bits.
    """
    held, width = held_codes(part)
    if part.cardinality <= 256 and x.device.type != "cpu":
        return multiply_scalars_on_device(x, held, width, table, zero)
    if part.cardinality > 256 or not takes_inputs(len(x), len(held) * x.shape[1], width):
        return None
    return multiply_scalars(x, held, width, table, zero)


def multiply_table_by_columns(
    part: Indices,
    table: Tensor,
    panels: Panels,
    zero: int | None = None,
    scales: Tensor | None = None,
    group: int = 0,
) -> Tensor | None:
    """W·X with W = table[codes], codes packed along rows or not; see `multiply_coded_scalars`.

    Returns:
        (m, count), float32; None where codes have more than 8 bits, and groups have scales.
    """
    held, width = held_codes(part)
    if part.cardinality > 256:
        if group:
            return None
        of_rows = None if scales is None else scales[:, 0]
        rows = CodedRowBlocks(held, table[None, :, None], width)
        return multiply_coded_row_blocks([rows], panels, of_rows)
    return multiply_coded_scalars(held, width, table, panels, zero, scales, group)


def columns_of(part: Indices) -> Iterator[tuple[int, Tensor]]:
    """Yield a few columns of a matrix of codes at a time.

    Yields:
        The number of the first column, and the codes, (m, columns).
    """
    m, n = part.shape
    width = max(_NARROW, _TILE // max(1, m))
    if not isinstance(part, PackedIndices) or part.axis != 1 or part.width >= 8:
        for start in range(0, n, width):
            yield start, part.narrow(1, start, min(start + width, n)).values
        return
    run, mask = part.packed.shape[1], (1 << part.width) - 1
    for slot, first in enumerate(range(0, n, run)):
        for start in range(0, min(run, n - first), width):
            stop = min(start + width, run, n - first)
            yield first + start, (part.packed[:, start:stop] >> slot * part.width) & mask

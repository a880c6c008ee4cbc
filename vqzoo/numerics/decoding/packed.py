"""Codes of 1, 2 or 4 bits that share bytes while a network runs from them.

An axis of codes is cut into 8 / width runs of equal length. Byte j of the packed axis holds code j
of every run, that of the first in the lowest bits: one shift and one mask unpack a whole run.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqzoo.numerics.arrays import Floats, as_float32
from vqzoo.numerics.kernels.lines import LINE
from vqzoo.numerics.kernels.products.row_products import decode_packed_rows
from vqzoo.numerics.threads import run_tasks

WIDTHS = (1, 2, 4, 8, 16)
_VALUES = 1 << 21  # a task


def width_of(cardinality: int) -> int:
    """The bits of a code below `cardinality` (at most 65,536) in memory: one of `WIDTHS`."""
    bits = max(1, (cardinality - 1).bit_length())
    return next(width for width in WIDTHS if bits <= width)


def run_length(length: int, width: int, last: bool) -> int:
    """The bytes that hold `length` codes: a multiple of 16 along the last axis."""
    unit = 8 // width * (LINE if last else 1)
    return -(-length // unit) * (LINE if last else 1)


def flat_codes(codes: Tensor) -> NDArray[Any]:
    """Codes as kernels read them: flat, uint16 in the place of int16, of which the bits count."""
    array = codes.contiguous().view(-1).numpy()
    return array.view(np.uint16) if array.dtype == np.int16 else array


def code_bits(width: int) -> int:
    """The bits of a code as kernels take them: 32 if it has an element for itself."""
    return 32 if width >= 8 else width


def pack(codes: Tensor, width: int, axis: int) -> Tensor:
    """Pack codes along an axis.

    Args:
        codes: any shape but that of a scalar, integers below 2^width.
        width: 1, 2 or 4; or 16, which packs each code alone.
        axis: counted from the first one.

    Returns:
        uint8, with `run_length` bytes along that axis; or int16 of the same shape.
    """
    if width == 16:
        return codes.to(torch.int16)  # wraps
    length = codes.shape[axis]
    run = run_length(length, width, axis == codes.dim() - 1)
    shape = list(codes.shape)
    shape[axis] = run
    packed = torch.zeros(shape, dtype=torch.uint8, device=codes.device)
    for slot, start in enumerate(range(0, length, run)):
        part = codes.narrow(axis, start, min(run, length - start)).to(torch.uint8)
        packed.narrow(axis, 0, part.shape[axis]).bitwise_or_(part << slot * width)
    return packed


def unpack(packed: Tensor, width: int, axis: int, length: int) -> Tensor:
    """The codes that `pack` packed, uint8 or int32, in operations that torch can trace."""
    if width == 16:
        return packed.int() & 0xFFFF
    mask = (1 << width) - 1
    packed = packed.contiguous()  # some rows of a matrix are not, and would take longer
    runs = [(packed >> first) & mask for first in range(0, 8, width)]
    needed = -(-length // packed.shape[axis]) if length else 1
    return torch.cat(runs[:needed], axis).narrow(axis, 0, length)


def decode_packed(packed: Tensor, width: int, table: Tensor, out: Tensor) -> Tensor:
    """Fill `out` (m, n) with the values of codes that are packed along rows.

    Args:
        packed: (m, `run_length` of n), uint8, on the CPU.
        width: 1, 2 or 4.
        table: (k,) float, with k at most 2^width; codes are below k.
        out: contiguous float32.

    Returns:
        `out`.
    """
    m, n = out.shape
    flat, target = packed.contiguous().view(-1).numpy(), out.detach().view(-1).numpy()
    run, values, height = packed.shape[1], in_line(table), max(1, _VALUES // max(1, n))

    def work(start: int) -> None:
        stop = min(start + height, m)
        decode_packed_rows(flat, width, run, values, n, start, stop, target)

    run_tasks(work, range(0, m, height))
    return out


def in_line(table: Tensor) -> Floats:
    """A table of at most 16 floats, filled up with zeros."""
    values = np.zeros(LINE, np.float32)
    values[: len(table)] = as_float32(table)
    return values

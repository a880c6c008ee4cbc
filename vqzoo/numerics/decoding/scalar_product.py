"""Products with a matrix of scalar codes, which never exists as a whole.

Codes of at most four bits are unpacked and looked up in registers, so that a product reads a
fraction of the memory that the matrix takes, which is what limits a product with one input.
"""

import numpy as np
import torch
from torch import Tensor

from vqzoo.numerics.arrays import Floats, as_float32
from vqzoo.numerics.decoding.packed import in_line
from vqzoo.numerics.kernels.products.byte_rows import multiply_bytes, multiply_bytes_together
from vqzoo.numerics.kernels.products.byte_tables import HAS_BYTE_TABLES, byte_planes
from vqzoo.numerics.kernels.products.row_products import (
    TOGETHER,
    multiply_integers,
    multiply_integers_together,
    multiply_packed,
    multiply_packed_together,
    multiply_table,
    multiply_table_together,
)
from vqzoo.numerics.threads import run_pass_tasks

_MOST = 32  # inputs; with more, decoding some rows at a time is faster
_SMALL = 1 << 18  # weights that are decoded sooner than multiplied by more than a few inputs
_SEVERAL = 2  # inputs for which codes are unpacked together; fewer take less time one by one
_WEIGHTS = 1 << 22  # a task


def takes_inputs(inputs: int, weights: int, width: int) -> bool:
    """Whether products with scalar codes of so many bits take less time than decoding, or, with
    bits, than `multiply_coded_scalars`."""
    return inputs <= (_MOST if weights > _SMALL and width > 1 else TOGETHER)


def multiply_scalars(
    x: Tensor, codes: Tensor, width: int, table: Tensor, zero: int | None = None
) -> Tensor:
    """x·Wᵀ with W = table[codes].

    Args:
        x: (r, n), float32 on the CPU; see `takes_inputs`.
        codes: (m, n), uint8, if width is 8; or packed along rows, see `decoding.packed`.
        width: bits of a code, 1, 2, 4 or 8.
        table: (k,), float; codes are below k.
        zero: the code of 0, if the table is that of the integers around it.

    Returns:
        (r, m), float32; the same with any number of threads.
    """
    m = codes.shape[0]
    flat = codes.contiguous().view(-1).numpy()
    length = x.shape[1] if width == 8 else 8 // width * codes.shape[1]
    inputs = np.zeros((len(x), length), np.float32)
    inputs[:, : x.shape[1]] = as_float32(x)
    height = max(1, _WEIGHTS // max(1, length))
    result = np.empty((len(x), m), np.float32)
    values = in_line(table) if width < 8 else as_float32(table)
    looks_up = HAS_BYTE_TABLES and width == 8 and zero is None
    planes = byte_planes(values) if looks_up else None

    def multiply(together: int, part: Floats, out: Floats) -> None:
        def work(start: int) -> None:
            stop = min(start + height, m)
            if width < 8:
                kernel = multiply_packed_together if together > 1 else multiply_packed
                kernel(flat, width, codes.shape[1], values, part, start, stop, out)
            elif zero is not None:
                kernel = multiply_integers_together if together > 1 else multiply_integers
                kernel(flat, length, np.float32(zero), part, start, stop, out)
            elif planes is not None:
                kernel = multiply_bytes_together if together > 1 else multiply_bytes
                kernel(flat, length, planes, values, part, start, stop, out)
            else:
                kernel = multiply_table_together if together > 1 else multiply_table
                kernel(flat, length, values, part, start, stop, out)

        run_pass_tasks(work, range(0, m, height))

    for first in range(0, len(x), TOGETHER):
        part = inputs[first : first + TOGETHER]
        if len(part) < _SEVERAL:
            for place, one in enumerate(part):
                multiply(1, one, result[first + place])
            continue
        padded = np.zeros((TOGETHER, length), np.float32)
        padded[: len(part)] = part
        by_columns = width == 8 and zero is None and planes is None
        out = np.empty((m, TOGETHER), np.float32)
        together = np.ascontiguousarray(padded.T) if by_columns else padded
        multiply(TOGETHER, together.reshape(-1), out.reshape(-1))
        result[first : first + TOGETHER] = out.T[: len(part)]
    return torch.from_numpy(result)

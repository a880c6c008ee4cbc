"""Products of one input with matrices whose codes are read from the first to the last."""

import numpy as np
import torch
from torch import Tensor

from vqzoo.numerics.arrays import Ints, as_float32
from vqzoo.numerics.decoding.packed import code_bits, flat_codes
from vqzoo.numerics.decoding.sparse import SparseMatrix
from vqzoo.numerics.kernels.feedback.trellis import SEGMENT
from vqzoo.numerics.kernels.products.one_input import multiply_sparse_input, multiply_walk_input
from vqzoo.numerics.threads import run_kernel

_GAPS = 1 << 16  # a task, about


def multiply_sparse_by_input(matrix: SparseMatrix, x: Tensor) -> Tensor:
    """W·x with a sparse matrix.

    Args:
        matrix: W, (m, n).
        x: (n,), float32 on the CPU.

    Returns:
        (m,), float32; the same with any number of threads.
    """
    arrays, values = matrix.arrays(len(x)), as_float32(x)
    out = np.empty(matrix.m, np.float32)
    height = max(1, _GAPS * matrix.m // max(1, matrix.count))

    def multiply(team: Ints) -> None:
        multiply_sparse_input(team, height, *arrays, values, out)

    run_kernel(multiply, -(-matrix.m // height))
    return torch.from_numpy(out)


def multiply_walk(codes: Tensor, width: int, reach: int, x: Tensor, scales: Tensor) -> Tensor:
    """W·x with the levels of a trellis, their rows scaled; see `feedback.grid.levels`.

    Args:
        codes, width, reach, scales: as for `column_products.multiply_walks`.
        x: (n,), float32 on the CPU.

    Returns:
        (m,), float32; the same with any number of threads.
    """
    m, flat, values, factors = len(codes), flat_codes(codes), as_float32(x), as_float32(scales)
    layout, center = (code_bits(width), codes.shape[1]), np.int32(reach)
    out = np.empty(m, np.float32)

    def multiply(team: Ints) -> None:
        multiply_walk_input(team, m, flat, layout, center, values, factors, out)

    run_kernel(multiply, -(-m // SEGMENT))
    return torch.from_numpy(out)

"""Positions of the nonzeros of a sparse matrix as gaps of few bits.

A gap of b bits counts the zeros before the next nonzero. The largest symbol, 2^b - 1, is a filler:
it passes over that many zeros and brings no nonzero (Han, Mao, Dally 2016, arXiv 1510.00149,
section 2 and figure 2, where fillers also take a value, zero, of their own).
"""

import numpy as np
import torch
from torch import Tensor

from vqzoo.numerics.arrays import code_dtype


def gaps_of(positions: Tensor, bits: int) -> Tensor:
    """Encode ascending positions.

    Args:
        positions: (count,), int64, ascending, distinct, >= 0.
        bits: of a gap, 1 to 16.

    Returns:
        (count + fillers,) gaps, uint8 where bits <= 8, else int32.
    """
    filler = (1 << bits) - 1
    zeros = torch.diff(positions, prepend=positions.new_tensor([-1])) - 1
    fillers = zeros // filler
    ends = (fillers + 1).cumsum(0) - 1  # where each position's own gap goes
    total = int(ends[-1]) + 1 if len(ends) else 0
    gaps = torch.full((total,), filler, dtype=code_dtype(1 << bits))
    gaps[ends] = (zeros % filler).to(gaps.dtype)
    return gaps


def positions_of(gaps: Tensor, bits: int) -> Tensor:
    """Decode what `gaps_of` encoded: (count,), int64, ascending."""
    filler = (1 << bits) - 1
    brings = gaps != filler
    ends = (gaps.long() + brings).cumsum(0)
    return ends[brings] - 1


def largest(values: Tensor, count: int) -> Tensor:
    """Positions of the `count` values of largest magnitude, ascending; of equal ones the first.

    Args:
        values: (n,), float32, on the CPU.
        count: 0 to n.
    """
    if not 0 <= count <= len(values):
        raise ValueError(f"count must be between 0 and {len(values)}, not {count}")
    if count == 0:
        return torch.empty(0, dtype=torch.int64)
    magnitudes = values.abs()
    place = len(values) - count
    threshold = float(np.partition(magnitudes.numpy(), place)[place])
    above = magnitudes > threshold
    level = (magnitudes == threshold).nonzero()[:, 0][: count - int(above.sum())]
    above[level] = True
    return above.nonzero()[:, 0]

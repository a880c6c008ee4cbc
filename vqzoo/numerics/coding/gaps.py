"""The positions of a sparse matrix's nonzeros, stored as gaps of few bits.

A gap of b bits counts the zeros before the next nonzero. The largest symbol, 2^b - 1, is a filler:
it skips that many zeros without a nonzero after them (Han, Mao, Dally 2016, arXiv 1510.00149,
section 2 and figure 2, where a filler also stores a value, zero).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from vqzoo.numerics.arrays import code_dtype
from vqzoo.numerics.compiled import compiled


def gaps_of(positions: Tensor, bits: int) -> Tensor:
    """Encode ascending positions.

    Args:
        positions: (count,), int64, ascending, distinct, >= 0.
        bits: bits a gap, 1 to 16.

    Returns:
        (count + fillers,) gaps, uint8 where bits <= 8, else int32.
    """
    filler = (1 << bits) - 1
    zeros = torch.diff(positions, prepend=positions.new_tensor([-1])) - 1
    fillers = zeros // filler
    ends = (fillers + 1).cumsum(0) - 1  # the index of the gap that ends at each position
    total = int(ends[-1]) + 1 if len(ends) else 0
    gaps = torch.full((total,), filler, dtype=code_dtype(1 << bits))
    gaps[ends] = (zeros % filler).to(gaps.dtype)
    return gaps


def positions_of(gaps: Tensor, bits: int) -> Tensor:
    """Decode the gaps of `gaps_of` to positions (count,), int64, ascending."""
    filler = (1 << bits) - 1
    is_gap = gaps != filler
    ends = (gaps.long() + is_gap).cumsum(0)
    return ends[is_gap] - 1


class Stretch(NamedTuple):
    """The nonzeros in a part of the matrix.

    Attributes:
        positions: (count,), int64, ascending, from the beginning of the part.
        first: the number of nonzeros before it.
        last: `first` plus those in it.
    """

    positions: Tensor
    first: int
    last: int


def stretch_of(gaps: Tensor, bits: int, start: int, stop: int) -> Stretch:
    """The nonzeros at positions `start` to `stop` - 1; no more than these are decoded."""
    flat, filler = gaps.cpu().numpy(), (1 << bits) - 1
    begin, first, base = _before(flat, filler, start)
    end, last, _ = _before(flat, filler, stop)
    return Stretch(positions_of(gaps[begin:end], bits) + (base - start), first, last)


@compiled()
def _before(gaps, filler, position):  # type: ignore[no-untyped-def]
    """Behind the last nonzero before a position: gaps and nonzeros so far, and the place."""
    symbols, count, place, end = 0, 0, 0, 0
    for i in range(gaps.shape[0]):
        gap = int(gaps[i])
        if gap == filler:
            end += filler
            continue
        if end + gap >= position:
            break
        end += gap + 1
        symbols, count, place = i + 1, count + 1, end
    return symbols, count, place

"""E8P: 65,536 points of a shifted E8 lattice, 2 bits a weight (Tseng et al. 2024, section 4.2).

A point is a vector of magnitudes out of 256, with signs, plus or minus 1/4 in every coordinate. The
magnitudes are odd multiples of 1/2. The coordinates add up to an even number, so seven signs
determine the eighth. Code: bits 0-7 magnitudes, 8-14 signs of the first seven coordinates (1 is
minus), 15 the shift (1 is minus).
"""

from functools import cache
from itertools import product

import torch
from torch import Tensor

DIMENSION = 8
CODES = 1 << 16
_SHIFT = 0.25
_CHUNK = 1 << 12


@cache
def magnitudes() -> Tensor:
    """(256, 8): the 227 vectors of squared norm up to 10, and 29 of the 224 of squared norm 12 (the
    first in lexicographic order; the paper chooses others)."""
    vectors = [v for v in product((0.5, 1.5, 2.5), repeat=DIMENSION) if _norm(v) <= 12]
    vectors.sort(key=lambda v: (_norm(v) > 10, v))
    return torch.tensor(vectors[:256])


@cache
def points() -> Tensor:
    """(65536, 8): the point of every code."""
    codes = torch.arange(CODES)
    size = magnitudes()[codes & 255]
    minus = (codes[:, None] >> torch.arange(8, 15)) & 1
    last = (minus.sum(1) + _odd(size)) & 1
    signs = 1 - 2 * torch.cat([minus, last[:, None]], 1)
    shift = _SHIFT * (1 - 2 * (codes >> 15))
    return size * signs + shift[:, None]


def nearest(vectors: Tensor) -> Tensor:
    """Codes of the nearest points of (count, 8) vectors, int64 (count,)."""
    return torch.cat([_nearest(chunk) for chunk in vectors.split(_CHUNK)])


def _nearest(vectors: Tensor) -> Tensor:
    plus, plus_distance = _nearest_shifted(vectors - _SHIFT)
    minus, minus_distance = _nearest_shifted(vectors + _SHIFT)
    return torch.where(minus_distance < plus_distance, minus + (1 << 15), plus)


def _nearest_shifted(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and squared distances among the points before their shift.

    Signs are those of the vector; if their parity is wrong, the cheapest coordinate flips its sign.
    """
    size = magnitudes().to(vectors.device)
    minus = (vectors < 0).long()
    absolute = vectors.abs()
    cheapest = absolute[:, :1] * size[:, 0]
    for i in range(1, DIMENSION):
        cheapest = torch.minimum(cheapest, absolute[:, i : i + 1] * size[:, i])
    wrong = (minus.sum(1, keepdim=True) + _odd(size)) & 1
    products = absolute @ size.T - 2 * cheapest * wrong
    score = size.square().sum(1) - 2 * products
    least, index = score.min(1)
    flip = (absolute * size[index]).argmin(1, keepdim=True)
    flipped = minus.scatter_add(1, flip, wrong.gather(1, index[:, None])) & 1
    weights = 1 << torch.arange(8, 15, device=vectors.device)
    return index + (flipped[:, :7] * weights).sum(1), least + vectors.square().sum(1)


def _odd(size: Tensor) -> Tensor:
    """1 where the coordinates of (..., 8) magnitudes add up to an odd number, else 0."""
    return size.sum(-1).long() & 1


def _norm(vector: tuple[float, ...]) -> float:
    return sum(value * value for value in vector)

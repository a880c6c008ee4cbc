"""Statistics of paired measurements."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

# The 97.5% quantile of the normal distribution.
Z95 = 1.959963984540054


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference in percentage points, and the half-width of its 95% confidence interval."""

    points: float
    half_width: float


def paired_points(a: Tensor, b: Tensor) -> PairedDifference:
    """Mean of `b` less mean of `a`, fractions (n,) of the same images, as `paired_difference`.

    Raises:
        ValueError: there are fewer than two.
    """
    if len(a) < 2:
        raise ValueError("a paired difference needs at least two images")
    difference = 100 * (b - a)
    half_width = Z95 * float(difference.std()) / math.sqrt(len(a))
    return PairedDifference(points=float(difference.mean()), half_width=half_width)

"""Statistics of paired measurements."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

Z95 = 1.959963984540054  # the 97.5% quantile of the normal distribution


@dataclass(frozen=True)
class PairedDifference:
    """A mean difference and its 95% confidence interval.

    Attributes:
        points: the mean difference in percentage points.
        half_width: half the width of the interval, in percentage points.
    """

    points: float
    half_width: float


def paired_points(a: Tensor, b: Tensor) -> PairedDifference:
    """Mean of `b` minus mean of `a`, in percentage points, with Wald's 95% interval.

    Args:
        a: fractions in [0, 1], float64, (n,), one per image or query.
        b: the same for the same images or queries.

    Raises:
        ValueError: n is less than 2.
    """
    if len(a) < 2:
        raise ValueError("a paired difference needs at least two images or queries")
    difference = 100 * (b - a)
    half_width = Z95 * float(difference.std()) / math.sqrt(len(a))
    return PairedDifference(points=float(difference.mean()), half_width=half_width)

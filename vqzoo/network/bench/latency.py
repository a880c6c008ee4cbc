"""The median of times, and its confidence interval."""

from collections.abc import Sequence
from math import comb

from vqzoo.report.costs.record import Latency

FEWEST_PASSES = 6  # of which the whole range holds the median with 95% confidence


def latency(batch: int, seconds: Sequence[float], peak: int | None) -> Latency:
    """The median of at least `FEWEST_PASSES` times, and the interval between two order statistics
    that holds the true median with at least 95% confidence (binomial, without assumptions)."""
    ordered = sorted(seconds)
    count = len(ordered)
    middle = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    rank, outside = 0, 1 / 2**count
    while 2 * outside <= 0.05:
        rank += 1
        outside += comb(count, rank) / 2**count
    low, high = ordered[rank - 1], ordered[count - rank]
    return Latency(batch=batch, median=middle, low=low, high=high, peak=peak)

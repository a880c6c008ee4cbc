"""Numbers counted into bins with exact sums, without sorting."""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vqzoo.numerics.arrays import Floats
from vqzoo.numerics.threads import run_tasks

Doubles = NDArray[np.float64]

BINS = 1 << 16
TAIL = 4096  # of them for each tail, 128 an octave of the distance from the core
_TASKS = 8  # partial histograms: 1 MiB each


@dataclass(frozen=True)
class Bins:
    """Non-empty bins in ascending order of value."""

    mass: Doubles
    """(n,), Σ w of the bin, > 0."""
    moment: Doubles
    """(n,), Σ w·(v - origin)."""
    origin: float


def bins_of(values: Floats, weights: Floats | None, exact: bool = False) -> Bins:
    """Count finite values (n,), weighted or not.

    Up to 65,536 values, and all if `exact`, each have a bin of their own. Otherwise they share
    equal bins over the core of the distribution (as a sample of them shows it) and logarithmic
    ones in the tails, so that a few outliers, however far, cost no precision.

    Raises ValueError where a value is not finite.
    """
    if exact or len(values) <= BINS:
        if not np.isfinite(values).all():
            raise ValueError("values must be finite")
        order = np.argsort(values, kind="stable")
        ordered = values[order].astype(np.float64)
        mass = np.ones(len(values)) if weights is None else weights[order].astype(np.float64)
        origin = float(ordered.mean())
        starts = np.flatnonzero(np.concatenate([[True], np.diff(ordered) > 0]))
        mass, moment = (
            np.add.reduceat(mass, starts),
            np.add.reduceat(mass * (ordered - origin), starts),
        )
    else:
        stride = len(values) // BINS
        low, high = core_of(np.sort(values[::stride]))
        origin = (low + high) / 2
        width = -(-len(values) // _TASKS)
        none = np.empty(0, np.float32)

        def work(task: int) -> tuple[Doubles, Doubles]:
            part = slice(task * width, (task + 1) * width)
            own = none if weights is None else weights[part]
            return _count(values[part], own, np.float32(low), np.float32(high), origin)

        parts = run_tasks(work, range(_TASKS))
        mass = np.sum([part[0] for part in parts], axis=0)
        moment = np.sum([part[1] for part in parts], axis=0)
        if not np.isfinite(moment).all():
            raise ValueError("values must be finite")
    used = mass > 0
    return Bins(mass[used], moment[used], origin)


def core_of(ordered: Floats) -> tuple[float, float]:
    """Where values are dense: the middle 99.8%, and half its width more on each side."""
    n = len(ordered)
    low, high = float(ordered[n // 1000]), float(ordered[n - 1 - n // 1000])
    margin = (high - low) / 2
    if margin == 0.0:
        margin = max(abs(low) * 1e-3, 1e-30)
    return low - margin, high + margin


@njit(nogil=True, cache=True)
def _tail_bin(distance, width):  # type: ignore[no-untyped-def]
    """0, 1, ... on a logarithmic scale of distance/width >= 0: 128 bins an octave."""
    ratio = np.float64(distance) / np.float64(width)
    place = 128.0 * np.log2(1.0 + ratio)
    return int(place) if place < TAIL - 1 else TAIL - 1  # not a number: the last


@njit(nogil=True, cache=True)
def _count(values, weights, low, high, origin):  # type: ignore[no-untyped-def]
    mass = np.zeros(BINS, np.float64)
    moment = np.zeros(BINS, np.float64)
    core = BINS - 2 * TAIL
    scale = np.float32(core / (np.float64(high) - np.float64(low)))
    weighted = weights.shape[0] > 0
    for i in range(values.shape[0]):
        value = values[i]
        at = (value - low) * scale
        if at >= np.float32(0.0) and at < np.float32(core):
            bin_ = TAIL + int(at)
        elif value < low:
            bin_ = TAIL - 1 - _tail_bin(low - value, high - low)
        else:
            bin_ = BINS - TAIL + _tail_bin(value - high, high - low)
        w = np.float64(weights[i]) if weighted else 1.0
        mass[bin_] += w
        moment[bin_] += w * (np.float64(value) - origin)
    return mass, moment

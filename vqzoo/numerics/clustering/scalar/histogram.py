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
_CHUNK = 2048  # values whose bins are found together, by vector instructions


@dataclass(frozen=True)
class Bins:
    """Non-empty bins in ascending order of value."""

    mass: Doubles
    """(n,), Σ w of the bin, > 0."""
    moment: Doubles
    """(n,), Σ w·(v - origin)."""
    origin: float
    grid: "Grid | None" = None
    """What they are bins of, where it is known and values share bins."""


@dataclass(frozen=True)
class Grid:
    """65,536 bins, and which of them are not empty."""

    low: np.float32
    high: np.float32
    """Of the core."""
    numbers: NDArray[np.int64]
    """(n,), of the bins in use."""

    def places_of(self, values: Floats) -> NDArray[np.int64]:
        """Where among the bins in use values belong that were counted into them."""
        places = np.zeros(BINS, np.int64)
        places[self.numbers] = np.arange(len(self.numbers))
        return places[_numbers(values, self.low, self.high)]


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
        used = mass > 0
        return Bins(mass[used], moment[used], origin)
    low, high = core_of(np.sort(values[:: len(values) // BINS]))
    origin = (low + high) / 2
    ends = np.float32(low), np.float32(high)
    parts = run_tasks(lambda part: _count(*part, *ends, origin), _parts_of(values, weights))
    mass, moment = np.sum(parts, axis=0).T
    if not np.isfinite(moment).all():
        raise ValueError("values must be finite")
    used = mass > 0
    return Bins(mass[used], moment[used], origin, Grid(*ends, np.flatnonzero(used)))


def values_in(
    values: Floats, weights: Floats | None, grid: Grid, near: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """The values that were counted into some of the bins in use, and their weights, none where
    there are none.

    near: (n,), which of them.
    """
    wanted = np.zeros(BINS, np.uint8)
    wanted[grid.numbers[near]] = 1
    parts = run_tasks(
        lambda part: _gather(*part, grid.low, grid.high, wanted), _parts_of(values, weights)
    )
    found, found_weights = zip(*parts, strict=True)
    return np.concatenate(found), np.concatenate(found_weights)


def _parts_of(values: Floats, weights: Floats | None) -> list[tuple[Floats, Floats]]:
    """What tasks work on; no weights where there are none."""
    width = -(-len(values) // _TASKS)
    none = np.empty(0, np.float32)
    parts = [slice(start, start + width) for start in range(0, len(values), width)]
    return [(values[part], none if weights is None else weights[part]) for part in parts]


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
def _bin_of(value, low, high, scale):  # type: ignore[no-untyped-def]
    """The number of a value's bin; scale: bins of the core over its width."""
    at = (value - low) * scale
    if at >= np.float32(0.0) and at < np.float32(BINS - 2 * TAIL):
        return TAIL + int(at)
    if value < low:
        return TAIL - 1 - _tail_bin(low - value, high - low)
    return BINS - TAIL + _tail_bin(value - high, high - low)


@njit(nogil=True, cache=True)
def _scale(low, high):  # type: ignore[no-untyped-def]
    return np.float32((BINS - 2 * TAIL) / (np.float64(high) - np.float64(low)))


@njit(nogil=True, cache=True)
def _core_numbers(values, low, scale, numbers):  # type: ignore[no-untyped-def]
    """Numbers of the core's bins; -1 and one past the last for what is outside, or no number."""
    last = np.float32(BINS - 2 * TAIL)
    for i in range(values.shape[0]):
        at = (values[i] - low) * scale
        at = at if at > np.float32(-1.0) else np.float32(-1.0)
        numbers[i] = np.int32(at if at < last else last)


@njit(nogil=True, cache=True)
def _count(values, weights, low, high, origin):  # type: ignore[no-untyped-def]
    """(BINS, 2) float64: Σ w and Σ w·(v - origin) of every bin, side by side in memory."""
    sums = np.zeros((BINS, 2), np.float64)
    scale = _scale(low, high)
    weighted = weights.shape[0] > 0
    room = np.empty(_CHUNK, np.int32)
    for start in range(0, values.shape[0], _CHUNK):
        part = values[start : start + _CHUNK]
        _core_numbers(part, low, scale, room)
        for i in range(part.shape[0]):
            value = part[i]
            bin_ = TAIL + room[i]
            if value < low or room[i] < 0 or room[i] >= BINS - 2 * TAIL:
                bin_ = _bin_of(value, low, high, scale)
            w = np.float64(weights[start + i]) if weighted else 1.0
            place = np.uint32(bin_)
            sums[place, 0] += w
            sums[place, 1] += w * (np.float64(value) - origin)
    return sums


@njit(nogil=True, cache=True)
def _gather(values, weights, low, high, wanted):  # type: ignore[no-untyped-def]
    """The values, and their weights, of bins of which `wanted` is 1."""
    weighted = weights.shape[0] > 0
    found = np.empty(4 * _CHUNK, np.float32)
    found_weights = np.empty(found.shape[0] if weighted else 0, np.float32)
    scale = _scale(low, high)
    room = np.empty(_CHUNK, np.int32)
    n = 0
    for start in range(0, values.shape[0], _CHUNK):
        part = values[start : start + _CHUNK]
        _core_numbers(part, low, scale, room)
        if n + _CHUNK > found.shape[0]:
            found = np.append(found, np.empty_like(found))
            found_weights = np.append(found_weights, np.empty_like(found_weights))
        for i in range(part.shape[0]):
            bin_ = TAIL + room[i]
            if part[i] < low or room[i] < 0 or room[i] >= BINS - 2 * TAIL:
                bin_ = _bin_of(part[i], low, high, scale)
            found[n] = part[i]
            if weighted:
                found_weights[n] = weights[start + i]
            n += wanted[np.uint32(bin_)]
    return found[:n].copy(), found_weights[: n if weighted else 0].copy()


@njit(nogil=True, cache=True)
def _numbers(values, low, high):  # type: ignore[no-untyped-def]
    result = np.empty(values.shape[0], np.int64)
    scale = _scale(low, high)
    for i in range(values.shape[0]):
        result[i] = _bin_of(values[i], low, high, scale)
    return result

"""Histograms of numbers with exact sums, computed without sorting."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqzoo.numerics.arrays import Doubles, Floats, Ints
from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.threads import run_tasks

BINS = 1 << 16
TAIL = 4096  # bins of each tail, 128 an octave of the distance from the core
_TASKS = 8  # partial histograms of 1 MiB each
_CHUNK = 2048  # values whose bins are computed together, by vector instructions


@dataclass(frozen=True)
class Bins:
    """Non-empty bins in ascending order of value."""

    mass: Doubles
    """(n,), > 0: Σ w of each bin."""
    moment: Doubles
    """(n,): Σ w·(v - origin) of each bin."""
    origin: float
    grid: "Grid | None" = None
    """The grid of the bins, where it is known and values share bins."""


@dataclass(frozen=True)
class Grid:
    """65,536 bins, and which of them are not empty."""

    low: np.float32
    """Lower end of the core."""
    high: np.float32
    """Upper end of the core."""
    numbers: Ints
    """(n,): the numbers of the non-empty bins."""

    def places_of(self, values: Floats) -> Ints:
        """The positions, among the non-empty bins, of the bins that values were counted into."""
        places = np.zeros(BINS, np.int64)
        places[self.numbers] = np.arange(len(self.numbers))
        return places[_numbers(values, self.low, self.high)]


def bins_of(values: Floats, weights: Floats | None, exact: bool = False) -> Bins:
    """Count finite values (n,) with their weights, if any.

    Of up to 65,536 values, or of any number if `exact`, each distinct one gets its own bin.
    Otherwise values share bins of equal width over the core of the distribution (estimated from a
    sample), and logarithmic bins in the tails, so that a few outliers cost no precision, however
    far away they are.

    Raises:
        ValueError: a value is not finite.
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
    """The values that were counted into some of the non-empty bins, and their weights (an empty
    array if there are no weights).

    near: (n,), which of the non-empty bins.
    """
    selected = np.zeros(BINS, np.uint8)
    selected[grid.numbers[near]] = 1
    parts = run_tasks(
        lambda part: _gather(*part, grid.low, grid.high, selected), _parts_of(values, weights)
    )
    gathered, gathered_weights = zip(*parts, strict=True)
    return np.concatenate(gathered), np.concatenate(gathered_weights)


def _parts_of(values: Floats, weights: Floats | None) -> list[tuple[Floats, Floats]]:
    """The values and weights of each task; an empty array stands for no weights."""
    width = -(-len(values) // _TASKS)
    empty = np.empty(0, np.float32)
    parts = [slice(start, start + width) for start in range(0, len(values), width)]
    return [(values[part], empty if weights is None else weights[part]) for part in parts]


def core_of(ordered: Floats) -> tuple[float, float]:
    """The range where values are dense: the middle 99.8%, extended by half its width each way."""
    n = len(ordered)
    low, high = float(ordered[n // 1000]), float(ordered[n - 1 - n // 1000])
    margin = (high - low) / 2
    if margin == 0.0:
        margin = max(abs(low) * 1e-3, 1e-30)
    return low - margin, high + margin


@compiled()
def _tail_bin(distance, width):  # type: ignore[no-untyped-def]
    """0, 1, ... on a logarithmic scale of distance/width >= 0, 128 bins an octave."""
    ratio = np.float64(distance) / np.float64(width)
    place = 128.0 * np.log2(1.0 + ratio)
    return int(place) if place < TAIL - 1 else TAIL - 1  # NaN becomes the last bin


@compiled()
def _bin_of(value, low, high, scale):  # type: ignore[no-untyped-def]
    """The number of a value's bin; `scale` is the number of the core's bins over its width."""
    at = (value - low) * scale
    if at >= np.float32(0.0) and at < np.float32(BINS - 2 * TAIL):
        return TAIL + int(at)
    if value < low:
        return TAIL - 1 - _tail_bin(low - value, high - low)
    return BINS - TAIL + _tail_bin(value - high, high - low)


@compiled()
def _scale(low, high):  # type: ignore[no-untyped-def]
    return np.float32((BINS - 2 * TAIL) / (np.float64(high) - np.float64(low)))


@compiled()
def _core_numbers(values, low, scale, numbers):  # type: ignore[no-untyped-def]
    """Write the numbers of the core's bins; -1 or one past the last for values outside and NaN."""
    last = np.float32(BINS - 2 * TAIL)
    for i in range(values.shape[0]):
        at = (values[i] - low) * scale
        at = at if at > np.float32(-1.0) else np.float32(-1.0)
        numbers[i] = np.int32(at if at < last else last)


@compiled()
def _count(values, weights, low, high, origin):  # type: ignore[no-untyped-def]
    """(BINS, 2) float64: Σ w and Σ w·(v - origin) of every bin, adjacent in memory."""
    sums = np.zeros((BINS, 2), np.float64)
    scale = _scale(low, high)
    weighted = weights.shape[0] > 0
    numbers = np.empty(_CHUNK, np.int32)
    for start in range(0, values.shape[0], _CHUNK):
        part = values[start : start + _CHUNK]
        _core_numbers(part, low, scale, numbers)
        for i in range(part.shape[0]):
            value = part[i]
            bin_ = TAIL + numbers[i]
            if value < low or numbers[i] < 0 or numbers[i] >= BINS - 2 * TAIL:
                bin_ = _bin_of(value, low, high, scale)
            w = np.float64(weights[start + i]) if weighted else 1.0
            place = np.uint32(bin_)
            sums[place, 0] += w
            sums[place, 1] += w * (np.float64(value) - origin)
    return sums


@compiled()
def _gather(values, weights, low, high, selected):  # type: ignore[no-untyped-def]
    """The values, and their weights, of bins whose entry of `selected` is 1."""
    weighted = weights.shape[0] > 0
    gathered = np.empty(4 * _CHUNK, np.float32)
    gathered_weights = np.empty(gathered.shape[0] if weighted else 0, np.float32)
    scale = _scale(low, high)
    numbers = np.empty(_CHUNK, np.int32)
    n = 0
    for start in range(0, values.shape[0], _CHUNK):
        part = values[start : start + _CHUNK]
        _core_numbers(part, low, scale, numbers)
        if n + _CHUNK > gathered.shape[0]:
            gathered = np.append(gathered, np.empty_like(gathered))
            gathered_weights = np.append(gathered_weights, np.empty_like(gathered_weights))
        for i in range(part.shape[0]):
            bin_ = TAIL + numbers[i]
            if part[i] < low or numbers[i] < 0 or numbers[i] >= BINS - 2 * TAIL:
                bin_ = _bin_of(part[i], low, high, scale)
            gathered[n] = part[i]
            if weighted:
                gathered_weights[n] = weights[start + i]
            n += selected[np.uint32(bin_)]
    return gathered[:n].copy(), gathered_weights[: n if weighted else 0].copy()


@compiled()
def _numbers(values, low, high):  # type: ignore[no-untyped-def]
    result = np.empty(values.shape[0], np.int64)
    scale = _scale(low, high)
    for i in range(values.shape[0]):
        result[i] = _bin_of(values[i], low, high, scale)
    return result

"""k-means on numbers: the optimum, on 65,536 bins or on the values themselves."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from vqzoo.numerics.accelerated.torch_histogram import bins_elsewhere, codes_elsewhere
from vqzoo.numerics.arrays import Floats, as_float32, empty_codes
from vqzoo.numerics.clustering.scalar.histogram import BINS, Bins, Doubles, bins_of
from vqzoo.numerics.clustering.scalar.intervals import optimal_cuts, running_sums
from vqzoo.numerics.clustering.scalar.windows import cuts_between_values
from vqzoo.numerics.threads import run_tasks

_TASK = 1 << 20  # values a task
_BINS_A_CUT = 16  # below, bins are too coarse to tell where a cut is: each value gets its own
_FEW = 1 << 18  # values, that get bins of their own in exact mode
_TABLE = 4096  # cells of the table that assignment starts from
_CHUNK = 2048  # values whose cells are found together, by vector instructions


@dataclass(frozen=True)
class ScalarClusters:
    """What scalar k-means found: `centroids[codes]` stands for the values."""

    centroids: Tensor
    """(k,), float32, ascending."""
    codes: Tensor
    """Of the values' shape, uint8 where k <= 256, else int32."""


def scalar_kmeans(
    values: Tensor, k: int, *, weights: Tensor | None = None, exact: bool = False
) -> ScalarClusters:
    """k-means on numbers, deterministic.

    The values are counted into 65,536 bins with exact sums (up to 65,536 values: a bin each); the
    best cut of the bins into k runs is found (see `intervals`), and every value takes the nearest
    of the runs' means. Values on another device than the CPU are counted and given their codes
    there, and the results stay there; only bins come to the CPU, or values where each has its own.

    Args:
        values: any shape, float32, float16 or bfloat16, finite, at least one.
        k: centroids, at least 1. Where it exceeds the number of distinct values, the surplus
            centroids repeat the largest one and no code names them.
        weights: of the values' shape, >= 0: the importance of each; all zero counts as equal.
        exact: move the cuts to the best place between any two values of the bins around them
            (see `windows`), where bins would allow only the borders between them.

    Raises:
        ValueError: no values, k < 1, weights of another shape or negative, values not finite.
    """
    centroids = scalar_centroids(values, k, weights=weights, exact=exact)
    return ScalarClusters(centroids, assign_scalar(values, centroids))


def scalar_centroids(
    values: Tensor, k: int, *, weights: Tensor | None = None, exact: bool = False
) -> Tensor:
    """The centroids of `scalar_kmeans` alone, (k,) float32; arguments and errors as there."""
    if values.numel() == 0 or k < 1:
        raise ValueError(f"expected at least one value and k >= 1, not {values.numel()} and {k}")
    if weights is not None:
        if weights.shape != values.shape:
            raise ValueError(f"weights must have shape {tuple(values.shape)}")
        if not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()):
            raise ValueError("weights must be finite and not negative")
        if not bool(weights.any()):
            weights = None
    flat, flat_weights = values.reshape(-1), None if weights is None else weights.reshape(-1)
    if exact:
        found = _exact_centroids(
            as_float32(flat), None if flat_weights is None else as_float32(flat_weights), k
        )
    else:
        found = _centroids(_bins(flat, flat_weights), k)
    return torch.from_numpy(found).to(values.device)


def assign_scalar(values: Tensor, centroids: Tensor) -> Tensor:
    """The code of the nearest centroid, for each value; of equally near ones the lowest.

    Args:
        values: any shape, float32, float16 or bfloat16.
        centroids: (k,), float32, ascending.

    Returns:
        Of the values' shape, uint8 where k <= 256, else int32.

    Raises:
        ValueError: centroids that do not ascend.
    """
    centers = as_float32(centroids)
    if centers.ndim != 1 or len(centers) == 0 or bool((np.diff(centers) < 0).any()):
        raise ValueError("centroids must be a vector, ascending")
    k = len(centers)
    limits = _limits(centers)
    if values.device.type != "cpu":
        return codes_elsewhere(values.detach(), torch.from_numpy(limits))
    table = _table(limits)
    codes = empty_codes((values.numel(),), k)
    written = codes.numpy()
    flat = values.detach().reshape(-1)

    def work(start: int) -> None:
        stop = min(start + _TASK, len(flat))
        _assign(
            as_float32(flat[start:stop]),
            limits,
            table.low,
            table.scale,
            table.codes,
            table.limits,
            table.crowded,
            written[start:stop],
        )

    run_tasks(work, range(0, len(flat), _TASK))
    return codes.view(values.shape)


def _bins(values: Tensor, weights: Tensor | None) -> Bins:
    has_doubles = values.device.type not in ("cpu", "mps")
    if has_doubles and len(values) > BINS:
        return bins_elsewhere(values.detach(), weights)
    return bins_of(as_float32(values), None if weights is None else as_float32(weights))


def _exact_centroids(values: Floats, weights: Floats | None, k: int) -> Floats:
    bins = _heavy(bins_of(values, weights, exact=len(values) <= _FEW))
    if bins.grid is None:
        return _centroids(bins, k)
    if k * _BINS_A_CUT > len(bins.mass):
        return _centroids(bins_of(values, weights, exact=True), k)
    if k == 1:
        return _centroids(bins, k)
    cuts = optimal_cuts(running_sums(bins.mass, bins.moment), k)
    mass, moment = cuts_between_values(values, weights, bins, bins.grid, cuts)
    return _ascending(moment / mass + bins.origin)


def _centroids(bins: Bins, k: int) -> Floats:
    bins = _heavy(bins)
    distinct = len(bins.mass)
    if k >= distinct:
        means = bins.moment / bins.mass + bins.origin
        return _ascending(np.append(means, np.full(k - distinct, means[-1])))
    sums = running_sums(bins.mass, bins.moment)
    ends = sums[optimal_cuts(sums, k)]
    return _ascending(np.diff(ends[:, 1]) / np.diff(ends[:, 0]) + bins.origin)


def _ascending(centroids: Doubles) -> Floats:
    return np.sort(centroids.astype(np.float32))


def _heavy(bins: Bins) -> Bins:
    """Those bins that are not lost in the running sum of their masses."""
    heavy = np.diff(np.cumsum(bins.mass), prepend=0.0) > 0
    if heavy.all():
        return bins
    grid = None if bins.grid is None else replace(bins.grid, numbers=bins.grid.numbers[heavy])
    return Bins(bins.mass[heavy], bins.moment[heavy], bins.origin, grid)


def _limits(centroids: Floats) -> Floats:
    """(k,): limits[j] is the largest value nearer to centroid j than to any above, or as near.

    Equal centroids share a limit: their first code takes all.
    """
    distinct, places = np.unique(centroids, return_inverse=True)
    middle = (distinct[:-1].astype(np.float64) + distinct[1:]) / 2
    limits = middle.astype(np.float32)
    limits = np.where(limits > middle, np.nextafter(limits, np.float32(-np.inf)), limits)
    return np.append(limits, np.float32(np.inf)).astype(np.float32)[places]


@dataclass(frozen=True)
class _Table:
    """Where assignment starts: cell ⌊(value - low)·scale⌋, from 0 to the last one, has a code that
    is too low by 1 where the value is above the code's limit."""

    low: np.float32
    scale: np.float32
    codes: NDArray[np.int32]
    limits: Floats
    """Of these codes."""
    crowded: bool
    """Whether a cell holds several limits: the code may then be too low by more."""


def _table(limits: Floats) -> _Table:
    """The table for limits (k,), rounded as `_cells` rounds."""
    finite = limits[np.isfinite(limits)]
    if len(finite) < 2 or finite[-1] <= finite[0]:
        none = np.zeros(_TABLE, np.int32)
        return _Table(np.float32(0), np.float32(0), none, limits[none], len(limits) > 2)
    low = finite[0]
    scale = np.float32(min((_TABLE - 1) / (float(finite[-1]) - float(low)), 3e38))
    # A limit's own cell may hold values on either side of it: start from its code.
    cells = ((limits - low) * scale).clip(0, _TABLE - 1).astype(np.int64)
    codes = np.searchsorted(cells, np.arange(_TABLE)).astype(np.int32)
    crowded = bool(np.bincount(cells[: len(finite)]).max() > 1)
    return _Table(low, scale, codes, limits[codes], crowded)


@njit(nogil=True, cache=True)
def _cells(values, low, scale, top, cells):  # type: ignore[no-untyped-def]
    for i in range(values.shape[0]):
        place = (values[i] - low) * scale
        place = place if place > np.float32(0.0) else np.float32(0.0)  # not a number: 0
        cells[i] = np.uint32(np.int32(place if place < top else top))


@njit(nogil=True, cache=True)
def _assign(values, limits, low, scale, table, table_limits, crowded, codes):  # type: ignore[no-untyped-def]
    """Write the codes of values (n,) into codes (n,), uint8 or int32."""
    top = np.float32(table.shape[0] - 1)
    room = np.empty(_CHUNK, np.uint32)
    for start in range(0, values.shape[0], _CHUNK):
        part = values[start : start + _CHUNK]
        out = codes[start : start + _CHUNK]
        _cells(part, low, scale, top, room)
        for i in range(part.shape[0]):  # no branch to mispredict
            cell = room[i]
            out[i] = table[cell] + np.int32(part[i] > table_limits[cell])
        if crowded:
            for i in range(part.shape[0]):
                code = np.int32(out[i])
                while part[i] > limits[code]:
                    code += 1
                out[i] = code

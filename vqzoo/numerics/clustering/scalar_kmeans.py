"""Optimal k-means on numbers, counted into 65,536 bins or taken as they are."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vqzoo.numerics.accelerated.torch_histogram import bins_on_device, codes_on_device
from vqzoo.numerics.arrays import Codes, Doubles, Floats, as_float32, empty_codes
from vqzoo.numerics.clustering.scalar.histogram import BINS, Bins, bins_of
from vqzoo.numerics.clustering.scalar.intervals import optimal_cuts, running_sums
from vqzoo.numerics.clustering.scalar.windows import cuts_between_values
from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.threads import run_tasks

FEW = 1 << 18  # values that get a bin each in exact mode
_TASK = 1 << 20  # values a task
_BINS_A_CUT = 16  # with fewer bins a cut, bins are too coarse for exact mode: each value gets one
_TABLE = 4096  # cells of the table that assignment starts from
_CHUNK = 2048  # values whose cells are computed together, by vector instructions


@dataclass(frozen=True)
class ScalarClusters:
    """Centroids and codes: the values become `centroids[codes]`."""

    centroids: Tensor
    """(k,), float32, ascending."""
    codes: Tensor
    """The values' shape; uint8 where k <= 256, else int32."""


def scalar_kmeans(
    values: Tensor, k: int, *, weights: Tensor | None = None, exact: bool = False
) -> ScalarClusters:
    """k-means on numbers; deterministic.

    The values are counted into 65,536 bins with exact sums (up to 65,536 values get a bin each);
    the bins are cut optimally into k runs (see `intervals`), and every value gets the code of the
    nearest of the runs' means. Values on a device other than the CPU are counted and encoded there,
    and the results stay there; only the bins are copied to the CPU, or the values where each has
    its own bin.

    Args:
        values: any shape, float32, float16 or bfloat16, finite, at least one.
        k: number of centroids, at least 1. If it exceeds the number of distinct values, the surplus
            centroids repeat the largest one and no code refers to them.
        weights: same shape, >= 0: the importance of each value; all zero counts as equal.
        exact: whether to move each cut to its best position between any two values of the bins
            around it (see `windows`), instead of only to borders between bins.

    Raises:
        ValueError: there are no values, k < 1, the weights have another shape or a negative number,
            or a value is not finite.
    """
    centroids = scalar_centroids(values, k, weights=weights, exact=exact)
    return ScalarClusters(centroids, assign_scalar(values, centroids))


def scalar_centroids(
    values: Tensor, k: int, *, weights: Tensor | None = None, exact: bool = False
) -> Tensor:
    """Only the centroids of `scalar_kmeans`, (k,) float32; arguments and errors are the same."""
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
        centroids = _exact_centroids(
            as_float32(flat), None if flat_weights is None else as_float32(flat_weights), k
        )
    else:
        centroids = _centroids(_bins(flat, flat_weights), k)
    return torch.from_numpy(centroids).to(values.device)


def assign_scalar(values: Tensor, centroids: Tensor) -> Tensor:
    """The code of each value's nearest centroid, the lower of two equally near ones.

    Args:
        values: any shape, float32, float16 or bfloat16.
        centroids: (k,), float32, ascending.

    Returns:
        Codes of the same shape, uint8 where k <= 256, else int32.

    Raises:
        ValueError: the centroids do not ascend.
    """
    centers = as_float32(centroids)
    if centers.ndim != 1 or len(centers) == 0 or bool((np.diff(centers) < 0).any()):
        raise ValueError("centroids must be a vector in ascending order")
    k = len(centers)
    limits = _limits(centers)
    if values.device.type != "cpu":
        return codes_on_device(values.detach(), torch.from_numpy(limits))
    table = _table(limits)
    codes = empty_codes((values.numel(),), k)
    array = codes.numpy()
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
            array[start:stop],
        )

    run_tasks(work, range(0, len(flat), _TASK))
    return codes.view(values.shape)


def _bins(values: Tensor, weights: Tensor | None) -> Bins:
    has_doubles = values.device.type not in ("cpu", "mps")
    if has_doubles and len(values) > BINS:
        return bins_on_device(values.detach(), weights)
    return bins_of(as_float32(values), None if weights is None else as_float32(weights))


def _exact_centroids(values: Floats, weights: Floats | None, k: int) -> Floats:
    bins = _heavy(bins_of(values, weights, exact=len(values) <= FEW))
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
    """The bins whose mass changes the running sum of all masses."""
    heavy = np.diff(np.cumsum(bins.mass), prepend=0.0) > 0
    if heavy.all():
        return bins
    grid = None if bins.grid is None else replace(bins.grid, numbers=bins.grid.numbers[heavy])
    return Bins(bins.mass[heavy], bins.moment[heavy], bins.origin, grid)


def _limits(centroids: Floats) -> Floats:
    """(k,): limits[j] is the largest value that is at least as near to centroid j as to the next.

    Equal centroids share a limit, so that the first of them gets all values.
    """
    distinct, places = np.unique(centroids, return_inverse=True)
    middle = (distinct[:-1].astype(np.float64) + distinct[1:]) / 2
    limits = middle.astype(np.float32)
    limits = np.where(limits > middle, np.nextafter(limits, np.float32(-np.inf)), limits)
    return np.append(limits, np.float32(np.inf)).astype(np.float32)[places]


@dataclass(frozen=True)
class _Table:
    """The start of assignment: cell ⌊(value - low)·scale⌋, clamped to the table, has a code that is
    too low by 1 if the value is above the code's limit."""

    low: np.float32
    scale: np.float32
    codes: Codes
    limits: Floats
    """The limits of these codes."""
    crowded: bool
    """Whether a cell holds several limits, so that its code may be too low by more than 1."""


def _table(limits: Floats) -> _Table:
    """The table for limits (k,), rounded as `_cells` rounds."""
    finite = limits[np.isfinite(limits)]
    if len(finite) < 2 or finite[-1] <= finite[0]:
        zeros = np.zeros(_TABLE, np.int32)
        return _Table(np.float32(0), np.float32(0), zeros, limits[zeros], len(limits) > 2)
    low = finite[0]
    scale = np.float32(min((_TABLE - 1) / (float(finite[-1]) - float(low)), 3e38))
    # The cell of a limit may hold values on either side of it: it starts from the limit's code.
    cells = ((limits - low) * scale).clip(0, _TABLE - 1).astype(np.int64)
    codes = np.searchsorted(cells, np.arange(_TABLE)).astype(np.int32)
    crowded = bool(np.bincount(cells[: len(finite)]).max() > 1)
    return _Table(low, scale, codes, limits[codes], crowded)


@compiled()
def _cells(values, low, scale, top, cells):  # type: ignore[no-untyped-def]
    for i in range(values.shape[0]):
        place = (values[i] - low) * scale
        place = place if place > np.float32(0.0) else np.float32(0.0)  # NaN becomes 0
        cells[i] = np.uint32(np.int32(place if place < top else top))


@compiled()
def _assign(values, limits, low, scale, table, table_limits, crowded, codes):  # type: ignore[no-untyped-def]
    """Write the codes of values (n,) to codes (n,), uint8 or int32."""
    top = np.float32(table.shape[0] - 1)
    cells = np.empty(_CHUNK, np.uint32)
    for start in range(0, values.shape[0], _CHUNK):
        part = values[start : start + _CHUNK]
        out = codes[start : start + _CHUNK]
        _cells(part, low, scale, top, cells)
        for i in range(part.shape[0]):  # without a branch that could be mispredicted
            cell = cells[i]
            out[i] = table[cell] + np.int32(part[i] > table_limits[cell])
        if crowded:
            for i in range(part.shape[0]):
                code = np.int32(out[i])
                while part[i] > limits[code]:
                    code += 1
                out[i] = code

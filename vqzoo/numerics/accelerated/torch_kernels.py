"""The steps of Lloyd's algorithm in plain torch, on any device: the same as `triton_kernels`."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vqzoo.numerics.accelerated.scaled_points import ScaledPoints
from vqzoo.numerics.arrays import code_dtype

SCORES = 1 << 26  # held at once, 256 MiB


@dataclass(frozen=True)
class Part:
    """What `add_up` adds: all points; or those of each cluster j above `borders[b, j]` in dimension
    `axes[b, j]`; or the squares of all points."""

    squares: bool = False
    axes: Tensor | None = None
    """(batch, k), int64."""
    borders: Tensor | None = None
    """(batch, k), float32."""


ALL = Part()
SQUARES = Part(squares=True)


def wide_floats(device: torch.device) -> torch.dtype:
    """The widest floating-point dtype of a device."""
    return torch.float32 if device.type == "mps" else torch.float64


def nearest(x: ScaledPoints, centroids: Tensor, with_costs: bool) -> tuple[Tensor, Tensor]:
    """The nearest centroid of each point, the lowest of equally near ones.

    Args:
        x: points (batch, d, n).
        centroids: (batch, k, d), float32, centred and scaled like the points.
        with_costs: whether to compute squared distances.

    Returns:
        Codes (batch, n), uint8 where k <= 256, else int32; and squared distances (batch, n),
        float32, exactly 0 for a point on its centroid, or an empty tensor without `with_costs`.
    """
    batch, d, n = x.values.shape
    k = centroids.shape[1]
    codes = torch.empty((batch, n), dtype=code_dtype(k), device=centroids.device)
    costs = torch.empty((batch, n) if with_costs else 0, device=centroids.device)
    halves = centroids.square().sum(2)[:, None] / 2
    for problems, points in _parts(batch, n, k + d):
        part = x.at(problems, points)
        books = centroids[problems]
        scores = torch.baddbmm(
            halves[problems], part.transpose(1, 2), books.transpose(1, 2), alpha=-1
        )
        first = first_smallest(scores)
        codes[problems, points] = first.to(codes.dtype)
        if with_costs:
            chosen = books.gather(1, first[:, :, None].expand(-1, -1, d)).transpose(1, 2)
            costs[problems, points] = (part - chosen).square().sum(1)
    return codes, costs


def add_up(
    x: ScaledPoints, mass: Tensor | None, codes: Tensor, k: int, part: Part
) -> tuple[Tensor, Tensor]:
    """Sums of points by cluster, as matrix products with indicators, which are reproducible.

    Args:
        x: points (batch, d, n).
        mass: (batch, n), float32, at most 1; None for 1 everywhere.
        codes: (batch, n), below k.
        k: number of clusters.
        part: which points to add, or their squares.

    Returns:
        Sums of mass · point (batch, k, d), and of mass (batch, k), in the device's widest floats.
    """
    batch, d, n = x.values.shape
    device = codes.device
    sums = torch.zeros((batch, k, d), dtype=wide_floats(device), device=device)
    counts = torch.zeros((batch, k), dtype=wide_floats(device), device=device)
    names = torch.arange(k, device=device)[:, None]
    for problems, points in _parts(batch, n, k + d):
        clusters = codes[problems, points].long()
        values = x.at(problems, points)
        chosen = (clusters[:, None] == names).float()
        if mass is not None:
            chosen *= mass[problems, None, points]
        if part.axes is not None and part.borders is not None:
            axes = part.axes[problems].gather(1, clusters)
            borders = part.borders[problems].gather(1, clusters)
            chosen *= (values.gather(1, axes[:, None])[:, 0] > borders)[:, None]
        if part.squares:
            values = values.square()
        sums[problems] += chosen @ values.transpose(1, 2)
        counts[problems] += chosen.sum(2)
    return sums, counts


def first_smallest(scores: Tensor) -> Tensor:
    """argmin over the last dimension, the first of equal ones (torch's does not promise which)."""
    names = torch.arange(scores.shape[2], device=scores.device, dtype=torch.int32)
    least = scores.amin(2, keepdim=True)
    first = torch.where(scores <= least, names, scores.shape[2]).amin(2)
    return torch.where(first < scores.shape[2], first, 0).long()  # NaN becomes 0


def _parts(batch: int, n: int, width: int) -> list[tuple[slice, slice]]:
    """Slices of problems and points such that (problems, points, width) is not too large."""
    points = max(1, min(n, SCORES // width))
    problems = max(1, SCORES // (points * width))
    return [
        (slice(b, b + problems), slice(i, i + points))
        for b in range(0, batch, problems)
        for i in range(0, n, points)
    ]

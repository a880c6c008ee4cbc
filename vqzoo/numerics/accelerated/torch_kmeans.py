"""k-means on an accelerator: Lloyd's iterations and relocation, for many problems at once.

One loop over two kernels, Triton's or torch's (see `accelerators`). Nothing depends on the order in
which an accelerator adds floats, so the same seed gives the same result.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vqzoo.numerics.accelerated.accelerators import Kernels, kernels_for
from vqzoo.numerics.accelerated.scaled_points import ScaledPoints, center_on, center_points
from vqzoo.numerics.accelerated.torch_kernels import ALL, SQUARES, Part
from vqzoo.numerics.accelerated.torch_relocation import relocate
from vqzoo.numerics.accelerated.torch_seeding import draw_centroids, stratified_draws
from vqzoo.numerics.kernels.relocation import patience
from vqzoo.numerics.threads import Progress

POINTS = 1 << 22  # of the problems that run side by side: about 30 bytes each, beside the weight


def train_torch(
    points: Tensor,
    k: int,
    weights: Tensor | None,
    seed: int,
    iterations: int,
    tolerance: float,
    progress: Progress | None = None,
    kernels: Kernels | None = None,
) -> Tensor:
    """Centroids (batch, k, d) of points (batch, d, n) on their device; arguments as in `kmeans`.

    Problems run in groups whose size depends on shapes alone, each problem with its own draws.
    """
    batch, d, n = points.shape
    kernels = kernels or kernels_for(points.device, d)
    centroids = torch.empty((batch, k, d), device=points.device)
    group = max(1, POINTS // n)
    total = -(-batch // group) * iterations
    for number, first in enumerate(range(0, batch, group)):

        def report(iteration: int, number: int = number) -> None:
            if progress is not None:
                progress(number * iterations + iteration, total)

        part = slice(first, first + group)
        x = center_points(points[part])
        mass = None if weights is None else mass_of(weights[part].to(points.device))
        draws = stratified_draws(seed, first, len(x.values), k)
        scaled = draw_centroids(x, k, mass, draws, kernels)
        scaled = _lloyd(x, mass, scaled, iterations, tolerance, kernels, report)
        centroids[part] = x.restore(scaled)
    if progress is not None:
        progress(total, total)
    return centroids


def assign_torch(points: Tensor, centroids: Tensor, kernels: Kernels | None = None) -> Tensor:
    """`kmeans.assign` on the points' device."""
    kernels = kernels or kernels_for(points.device, points.shape[1])
    x = center_on(points, centroids.float())
    moved = (centroids.float() - x.offset[:, None]) * x.scale[:, None, None]
    return kernels.nearest(x, moved, False)[0]


def mass_of(weights: Tensor) -> Tensor:
    """Weights (batch, n) as fractions of each problem's largest; all 1 where all are zero."""
    largest = weights.amax(1, keepdim=True)
    return torch.where(largest > 0, weights / largest, 1.0).float().contiguous()


def _lloyd(
    x: ScaledPoints,
    mass: Tensor | None,
    centroids: Tensor,
    iterations: int,
    tolerance: float,
    kernels: Kernels,
    report: Callable[[int], None],
) -> Tensor:
    """`kernels.lloyd.lloyd` for a batch: each problem stops on its own, the loop with the last."""
    batch, k, _ = centroids.shape
    device = centroids.device
    previous = torch.full((batch,), torch.inf, device=device)
    running = torch.ones(batch, dtype=torch.bool, device=device)
    relocated = torch.zeros(batch, dtype=torch.bool, device=device)
    kept = centroids
    for iteration in range(iterations):
        codes, costs = kernels.nearest(x, centroids, True)
        error = (costs if mass is None else costs * mass).sum(1)
        worse = relocated & (error > previous)
        running &= relocated | (previous - error > tolerance * error)
        report(iteration + 1)
        if not bool(running.any()):
            break
        sums, counts = kernels.add_up(x, mass, codes, k, ALL)
        means = _means(sums, counts, centroids)
        moved, moves = means, torch.zeros_like(running)
        thresholds = _patience(counts, iteration, iterations)
        if thresholds is not None:
            moved, moves = _relocated(x, mass, codes, sums, counts, means, thresholds, kernels)
        centroids = _choose(running, _choose(worse, kept, moved), centroids)
        kept = _choose(worse, kept, means)
        previous = torch.where(worse, previous, error)
        relocated = moves & ~worse
    return centroids


def _patience(counts: Tensor, iteration: int, iterations: int) -> Tensor | None:
    """The patience of each problem, (batch, 1); None where this iteration relocates nothing.

    Empty clusters are relocated in any iteration, where that is certain to pay.
    """
    threshold = patience(iteration, iterations)
    if threshold > 0.0:
        return torch.full_like(counts[:, :1], threshold)
    empty = (counts <= 0).any(1, keepdim=True)
    return torch.where(empty, 1.0, torch.inf).to(counts) if bool(empty.any()) else None


def _relocated(
    x: ScaledPoints,
    mass: Tensor | None,
    codes: Tensor,
    sums: Tensor,
    counts: Tensor,
    means: Tensor,
    thresholds: Tensor,
    kernels: Kernels,
) -> tuple[Tensor, Tensor]:
    """Centroids after mergers, and splits along each cluster's widest dimension at its mean; and
    which problems had any, (batch,)."""
    k = counts.shape[1]
    squares, _ = kernels.add_up(x, mass, codes, k, SQUARES)
    spreads = squares - sums * (sums / counts.clamp(min=1e-30)[..., None])
    axes = spreads.argmax(2)
    borders = means.gather(2, axes[..., None])[..., 0].contiguous()
    upper = kernels.add_up(x, mass, codes, k, Part(axes=axes, borders=borders))
    sums, counts, moves = relocate(sums, counts, *upper, thresholds)
    return _means(sums, counts, means), moves > 0


def _means(sums: Tensor, counts: Tensor, otherwise: Tensor) -> Tensor:
    """Means (batch, k, d) of the clusters; `otherwise` where a cluster is empty."""
    means = (sums / counts.clamp(min=1e-30)[..., None]).float()
    return torch.where(counts[..., None] > 0, means, otherwise)


def _choose(which: Tensor, ours: Tensor, others: Tensor) -> Tensor:
    return torch.where(which[:, None, None], ours, others)

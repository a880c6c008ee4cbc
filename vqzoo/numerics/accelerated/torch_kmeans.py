"""k-means on an accelerator: seeding, Lloyd's iterations, relocation, for many problems at once.

One loop over two kernels, Triton's or torch's: see `accelerators`. Nothing here depends on the
order in which an accelerator adds floats up: the same seed gives the same result.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vqzoo.numerics.accelerated.accelerators import Kernels, kernels_for
from vqzoo.numerics.accelerated.scaled_points import ScaledPoints, center_on, center_points
from vqzoo.numerics.accelerated.torch_kernels import ALL, SQUARES, Part
from vqzoo.numerics.accelerated.torch_relocation import relocate
from vqzoo.numerics.kernels.lloyd import patience

_POINTS = 1 << 22  # of the problems that run side by side: some 30 bytes each, beside the weight
_DRAW_BITS = 31
_FAR = 1e30  # beyond every squared distance of scaled points


def train_torch(
    points: Tensor,
    k: int,
    weights: Tensor | None,
    seed: int,
    iterations: int,
    tolerance: float,
    progress: Callable[[int, int], None] | None = None,
    kernels: Kernels | None = None,
) -> Tensor:
    """Centroids (batch, k, d) of points (batch, d, n), on their device: as `kmeans` trains.

    Problems run in groups whose size depends on shapes alone, each problem with draws of its own.
    """
    batch, d, n = points.shape
    kernels = kernels or kernels_for(points.device, d)
    centroids = torch.empty((batch, k, d), device=points.device)
    group = max(1, _POINTS // n)
    total = -(-batch // group) * iterations
    for number, first in enumerate(range(0, batch, group)):

        def report(iteration: int, number: int = number) -> None:
            if progress is not None:
                progress(number * iterations + iteration, total)

        part = slice(first, first + group)
        x = center_points(points[part])
        mass = None if weights is None else mass_of(weights[part].to(points.device))
        found = _seeds(x, k, mass, _draws(seed, first, len(x.values), k), kernels)
        found = _lloyd(x, mass, found, iterations, tolerance, kernels, report)
        centroids[part] = x.restore(found)
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
    """Weights (batch, n) as parts of each problem's largest; all equal where all are zero."""
    largest = weights.amax(1, keepdim=True)
    return torch.where(largest > 0, weights / largest, 1.0).float().contiguous()


def _draws(seed: int, first: int, batch: int, k: int) -> list[Tensor]:
    """For each round of `_seeds` its draws (batch, m), int64 below 2^31, ascending.

    One from each of m equal parts of the range. Every problem draws its own numbers, wherever in
    the batch its group starts.
    """
    stream = np.random.PCG64(seed % (1 << 64)).advance(first * k)
    numbers = np.random.Generator(stream).random((batch, k))
    rounds = []
    done = 0
    while done < k:
        m = min(max(1, done // 4), k - done)
        places = (numbers[:, done : done + m] + np.arange(m)) / m
        rounds.append(torch.from_numpy((places * (1 << _DRAW_BITS)).astype(np.int64)))
        done += m
    return rounds


def _seeds(
    x: ScaledPoints, k: int, mass: Tensor | None, draws: list[Tensor], kernels: Kernels
) -> Tensor:
    """k-means++ in rounds, each adding a quarter to the centroids there are.

    k-means|| (Bahmani et al. 2012) shows that k-means++ bears drawing many points at once, by
    their mass times squared distance; here they are as many as are wanted in the end, so that
    nothing is left to recluster. The draws of a round are stratified, and sums of shares are of
    integers, the same however they are added up.
    """
    batch, _, n = x.values.shape
    device = x.offset.device
    costs = torch.full((batch, n), _FAR, device=device)
    centroids = torch.empty((batch, 0, x.values.shape[1]), device=device)
    units = 2.0 ** (60 - n.bit_length())
    for round_, drawn in enumerate(draws):
        if round_ > 0:
            new = centroids[:, -draws[round_ - 1].shape[1] :]
            costs = torch.minimum(costs, kernels.nearest(x, new.contiguous(), True)[1])
        shares = costs if mass is None else costs * mass
        peaks = shares.amax(1, keepdim=True).clamp(min=1e-38)
        reached = (shares / peaks * units).to(torch.int64).cumsum(1)
        targets = _part_of(reached[:, -1:], drawn.to(device))
        places = torch.searchsorted(reached, targets, right=True).clamp(max=n - 1)
        centroids = torch.cat([centroids, x.pick(places)], 1)
    return centroids


def _part_of(total: Tensor, drawn: Tensor) -> Tensor:
    """⌊total · drawn / 2^31⌋, of int64 below 2^61 and 2^31: their product takes too many bits."""
    low = total & ((1 << _DRAW_BITS) - 1)
    return (total >> _DRAW_BITS) * drawn + (low * drawn >> _DRAW_BITS)


def _lloyd(
    x: ScaledPoints,
    mass: Tensor | None,
    centroids: Tensor,
    iterations: int,
    tolerance: float,
    kernels: Kernels,
    report: Callable[[int], None],
) -> Tensor:
    """`lloyd.lloyd` for a batch: each problem stops by itself, and the loop with the last one."""
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
        patient = _patience(counts, iteration, iterations)
        if patient is not None:
            moved, moves = _relocated(x, mass, codes, sums, counts, means, patient, kernels)
        centroids = _choose(running, _choose(worse, kept, moved), centroids)
        kept = _choose(worse, kept, means)
        previous = torch.where(worse, previous, error)
        relocated = moves & ~worse
    return centroids


def _patience(counts: Tensor, iteration: int, iterations: int) -> Tensor | None:
    """For each problem, (batch, 1); None where nothing is to be relocated in this iteration.

    An empty cluster is put to use at any time, where that is sure to pay.
    """
    patient = patience(iteration, iterations)
    if patient > 0.0:
        return torch.full_like(counts[:, :1], patient)
    empty = (counts <= 0).any(1, keepdim=True)
    return torch.where(empty, 1.0, torch.inf).to(counts) if bool(empty.any()) else None


def _relocated(
    x: ScaledPoints,
    mass: Tensor | None,
    codes: Tensor,
    sums: Tensor,
    counts: Tensor,
    means: Tensor,
    patient: Tensor,
    kernels: Kernels,
) -> tuple[Tensor, Tensor]:
    """Centroids after mergers and splits along each cluster's widest dimension, at its mean; and
    which problems had any, (batch,)."""
    k = counts.shape[1]
    squares, _ = kernels.add_up(x, mass, codes, k, SQUARES)
    spreads = squares - sums * (sums / counts.clamp(min=1e-30)[..., None])
    axes = spreads.argmax(2)
    borders = means.gather(2, axes[..., None])[..., 0].contiguous()
    upper = kernels.add_up(x, mass, codes, k, Part(axes=axes, borders=borders))
    sums, counts, moves = relocate(sums, counts, *upper, patient)
    return _means(sums, counts, means), moves > 0


def _means(sums: Tensor, counts: Tensor, otherwise: Tensor) -> Tensor:
    """(batch, k, d): an empty cluster's centroid stays."""
    means = (sums / counts.clamp(min=1e-30)[..., None]).float()
    return torch.where(counts[..., None] > 0, means, otherwise)


def _choose(which: Tensor, ours: Tensor, others: Tensor) -> Tensor:
    return torch.where(which[:, None, None], ours, others)

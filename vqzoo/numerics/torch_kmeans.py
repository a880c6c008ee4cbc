"""k-means in plain torch, for points that live on an accelerator."""

import torch
from torch import Tensor

from vqzoo.numerics.arrays import code_dtype

_SCORES = 1 << 26  # scores held at a time: 256 MiB


def train_torch(
    points: Tensor, k: int, weights: Tensor | None, seed: int, iterations: int, tolerance: float
) -> Tensor:
    """Centroids (batch, k, d) of points (batch, d, n), on their device: as `kmeans` trains.

    k-means++ and Lloyd's iterations; empty clusters take the points that cost most. Problems run
    in groups whose size depends on shapes alone, each problem with a generator of its own.
    """
    batch, d, n = points.shape
    centroids = torch.empty((batch, k, d), device=points.device)
    group = max(1, _SCORES // (n * k))
    for first in range(0, batch, group):
        part = slice(first, first + group)
        x = points[part].float()
        if not bool(torch.isfinite(x).all()):
            raise ValueError("points must be finite")
        mass = torch.ones_like(x[:, 0]) if weights is None else weights[part].to(x)
        mass = torch.where((mass > 0).any(1, keepdim=True), mass, 1.0)
        mean = x.mean(2, keepdim=True)
        scale = (x - mean).abs().amax((1, 2), keepdim=True).clamp(min=1e-30)
        x = (x - mean) / scale
        found = _seeds(x, k, mass, seed, first)
        previous = torch.full((len(x),), torch.inf, device=x.device)
        for _ in range(iterations):
            costs, codes = _nearest(x, found)
            error = (costs * mass).sum(1)
            found = _update(x, mass, codes, costs * mass, found)
            if bool((previous - error <= tolerance * error).all()):
                break
            previous = error
        centroids[part] = found * scale + mean.transpose(1, 2)
    return centroids


def assign_torch(points: Tensor, centroids: Tensor) -> Tensor:
    """`kmeans.assign` on the points' device."""
    batch, _, n = points.shape
    k = centroids.shape[1]
    codes = torch.empty((batch, n), dtype=code_dtype(k), device=points.device)
    width = max(1, min(n, _SCORES // k))
    group = max(1, _SCORES // (width * k))
    mean = centroids.mean(1, keepdim=True)
    for first in range(0, batch, group):
        part = slice(first, first + group)
        moved = (centroids - mean)[part]
        for start in range(0, n, width):
            x = points[part, :, start : start + width].float() - mean[part].transpose(1, 2)
            codes[part, start : start + width] = _scores(x, moved).argmin(2).to(codes.dtype)
    return codes


def _scores(x: Tensor, centroids: Tensor) -> Tensor:
    """(batch, n, k): |c|²/2 - x·c."""
    halves = centroids.square().sum(2)[:, None] / 2
    return torch.baddbmm(halves, x.transpose(1, 2), centroids.transpose(1, 2), alpha=-1)


def _nearest(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances and codes, (batch, n) each."""
    if x.shape[0] == 1 and x.shape[2] * centroids.shape[1] > _SCORES:
        width = max(1, _SCORES // centroids.shape[1])
        parts = [_nearest(part, centroids) for part in x.split(width, dim=2)]
        return torch.cat([p[0] for p in parts], 1), torch.cat([p[1] for p in parts], 1)
    scores, codes = _scores(x, centroids).min(2)
    return (2 * scores + x.square().sum(1)).clamp(min=0), codes


def _seeds(x: Tensor, k: int, mass: Tensor, seed: int, first: int) -> Tensor:
    """k-means++; every problem draws its own numbers, wherever in the batch its group starts."""
    batch, d, n = x.shape
    draws = torch.stack(
        [
            torch.rand(k, generator=torch.Generator().manual_seed(seed * 1_000_003 + first + b))
            for b in range(batch)
        ]
    ).to(x.device)
    centroids = torch.empty((batch, k, d), device=x.device)
    costs = torch.ones_like(mass)
    for j in range(k):
        shares = (costs * mass).double().cumsum(1)
        places = torch.searchsorted(shares, (draws[:, j : j + 1] * shares[:, -1:]), right=True)
        places = places.clamp(max=n - 1)
        centroids[:, j] = x.gather(2, places[:, None].expand(-1, d, -1))[:, :, 0]
        distances = (x - centroids[:, j, :, None]).square().sum(1)
        costs = distances if j == 0 else torch.minimum(costs, distances)
    return centroids


def _update(x: Tensor, mass: Tensor, codes: Tensor, costs: Tensor, centroids: Tensor) -> Tensor:
    """Means of the clusters; products with indicators, which are the same from run to run."""
    batch, k, d = centroids.shape
    sums = torch.zeros((batch, d, k), dtype=torch.float32, device=x.device)
    counts = torch.zeros((batch, 1, k), dtype=torch.float32, device=x.device)
    names = torch.arange(k, device=x.device)
    for start in range(0, x.shape[2], max(1, _SCORES // (batch * k))):
        part = slice(start, start + max(1, _SCORES // (batch * k)))
        chosen = (codes[:, part, None] == names).float() * mass[:, part, None]
        sums += x[:, :, part] @ chosen
        counts += chosen.sum(1, keepdim=True)
    filled = counts > 0
    means = torch.where(filled, sums / counts.clamp(min=1e-30), centroids.transpose(1, 2))
    # The j-th empty cluster takes the j-th most costly point, as long as that costs anything.
    most, places = costs.topk(min(k, costs.shape[1]), dim=1)
    rank = ((~filled[:, 0]).cumsum(1) - 1).clamp(0, most.shape[1] - 1)
    worst = x.gather(2, places.gather(1, rank)[:, None].expand(-1, d, -1))
    take = ~filled & (most.gather(1, rank) > 0)[:, None]
    return torch.where(take, worst, means).transpose(1, 2).contiguous()

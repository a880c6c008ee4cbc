"""Merging and splitting clusters, for many problems at once on an accelerator."""

import torch
from torch import Tensor

_PAIRS = 1 << 26  # held at a time


def split_gains(sums: Tensor, counts: Tensor, upper_sums: Tensor, upper_counts: Tensor) -> Tensor:
    """(batch, k): by how much each cluster's error falls when its upper half gets a mean of its
    own (Ward 1963)."""
    lower_sums, lower_counts = sums - upper_sums, counts - upper_counts
    lower = lower_sums / lower_counts.clamp(min=1e-30)[..., None]
    upper = upper_sums / upper_counts.clamp(min=1e-30)[..., None]
    shares = lower_counts * upper_counts / counts.clamp(min=1e-30)
    gains = (lower - upper).square().sum(2) * shares
    return torch.where((lower_counts > 0) & (upper_counts > 0), gains, 0.0)


def cheapest_mergers(sums: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """(batch, k) each: what merging a cluster into another one costs at least, and into which.

    An empty cluster costs nothing and is its own partner; the last one left costs infinity.
    """
    batch, k, d = sums.shape
    means = (sums / counts.clamp(min=1e-30)[..., None]).float()
    masses = counts.float()
    costs = torch.empty((batch, k), device=sums.device)
    partners = torch.empty((batch, k), dtype=torch.int64, device=sums.device)
    names = torch.arange(k, device=sums.device)
    height = max(1, min(k, _PAIRS // k))
    problems = max(1, _PAIRS // (height * k))
    for first in range(0, batch, problems):
        own = slice(first, first + problems)
        for top in range(0, k, height):
            rows = slice(top, top + height)
            distances = torch.zeros((), device=sums.device)
            for dim in range(d):
                here, there = means[own, rows, None, dim], means[own, None, :, dim]
                distances = distances + (here - there).square()
            mass, other = masses[own, rows, None], masses[own, None]
            distances = distances * (mass * other / (mass + other).clamp(min=1e-30))
            out = (other <= 0) | (names[rows, None] == names)
            costs[own, rows], partners[own, rows] = distances.masked_fill(out, torch.inf).min(2)
    empty = counts <= 0
    return torch.where(empty, 0.0, costs), torch.where(empty, names, partners)


def relocate(
    sums: Tensor, counts: Tensor, upper_sums: Tensor, upper_counts: Tensor, patience: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Merge pairs of clusters and split others, wherever that pays: `lloyd.relocate` in parallel.

    The cheapest merger pays for the best split, the second for the second, and so on, no cluster
    taking part in two of them: with a patience of 1 the error so never rises.

    Args:
        sums: (batch, k, d): of the clusters' points.
        counts: (batch, k): their masses.
        upper_sums: (batch, k, d), of the half of each cluster that a split takes away.
        upper_counts: (batch, k), likewise.
        patience: (batch, 1): a split must gain more than this part of what the merger costs.

    Returns:
        The sums and counts after that, and how many clusters moved, (batch,).
    """
    k = counts.shape[1]
    gains = split_gains(sums, counts, upper_sums, upper_counts).float()
    costs, partners = cheapest_mergers(sums, counts)
    costs = _disjoint(costs, partners)
    ordered, freed = costs.sort(dim=1, stable=True)
    best = gains.sort(dim=1, descending=True).values
    wanted = best > ordered * patience
    # Who takes part in one of so many mergers is not split.
    busy = torch.zeros_like(counts, dtype=torch.int32)
    busy.scatter_reduce_(1, freed, wanted.int(), "amax")
    busy.scatter_reduce_(1, partners.gather(1, freed), wanted.int(), "amax")
    best, split = torch.where(busy > 0, 0.0, gains).sort(dim=1, descending=True, stable=True)
    moves = wanted & (best > ordered * patience)
    # The rest happens to a cluster number k that nobody sees.
    freed = torch.where(moves, freed, k)
    partner = torch.where(moves, partners.gather(1, freed.clamp(max=k - 1)), k)
    split = torch.where(moves, split, k)
    stacked = torch.cat([sums, counts[..., None]], 2)
    upper = torch.cat([upper_sums, upper_counts[..., None]], 2)
    nobody = torch.zeros_like(stacked[:, :1])
    stacked, upper = torch.cat([stacked, nobody], 1), torch.cat([upper, nobody], 1)
    leaving = _rows(upper, split)
    _set_rows(stacked, partner, _rows(stacked, partner) + _rows(stacked, freed))
    _set_rows(stacked, split, _rows(stacked, split) - leaving)
    _set_rows(stacked, freed, leaving)
    return stacked[:, :k, :-1], stacked[:, :k, -1], moves.sum(1)


def _disjoint(costs: Tensor, partners: Tensor) -> Tensor:
    """The costs of the mergers that are the cheapest for both partners; of others infinity."""
    order = costs.argsort(dim=1, stable=True)
    ranks = torch.empty_like(order)
    ranks.scatter_(1, order, torch.arange(costs.shape[1], device=costs.device).expand_as(order))
    first = ranks.scatter_reduce(1, partners, ranks, "amin")
    chosen = (first == ranks) & (first.gather(1, partners) == ranks)
    return torch.where(chosen, costs, torch.inf)


def _rows(values: Tensor, places: Tensor) -> Tensor:
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[2]))


def _set_rows(values: Tensor, places: Tensor, rows: Tensor) -> None:
    values.scatter_(1, places[..., None].expand(-1, -1, values.shape[2]), rows)

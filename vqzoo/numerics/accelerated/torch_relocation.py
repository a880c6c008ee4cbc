"""Merging and splitting of clusters on an accelerator, for many problems at once."""

import torch
from torch import Tensor

PAIRS = 1 << 26  # held at once


def split_gains(sums: Tensor, counts: Tensor, upper_sums: Tensor, upper_counts: Tensor) -> Tensor:
    """(batch, k): the fall of each cluster's error when its two halves get separate means (Ward
    1963)."""
    lower_sums, lower_counts = sums - upper_sums, counts - upper_counts
    lower = lower_sums / lower_counts.clamp(min=1e-30)[..., None]
    upper = upper_sums / upper_counts.clamp(min=1e-30)[..., None]
    shares = lower_counts * upper_counts / counts.clamp(min=1e-30)
    gains = (lower - upper).square().sum(2) * shares
    return torch.where((lower_counts > 0) & (upper_counts > 0), gains, 0.0)


def cheapest_mergers(sums: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """(batch, k) each: the least cost of merging a cluster into another, and that other cluster.

    Merging an empty cluster costs nothing, and it is its own partner. The only cluster with points
    costs infinity.
    """
    batch, k, d = sums.shape
    means = (sums / counts.clamp(min=1e-30)[..., None]).float()
    masses = counts.float()
    costs = torch.empty((batch, k), device=sums.device)
    partners = torch.empty((batch, k), dtype=torch.int64, device=sums.device)
    names = torch.arange(k, device=sums.device)
    height = max(1, min(k, PAIRS // k))
    problems = max(1, PAIRS // (height * k))
    for first in range(0, batch, problems):
        some = slice(first, first + problems)
        for top in range(0, k, height):
            rows = slice(top, top + height)
            distances = torch.zeros((), device=sums.device)
            for dim in range(d):
                mean, other_mean = means[some, rows, None, dim], means[some, None, :, dim]
                distances = distances + (mean - other_mean).square()
            mass, other = masses[some, rows, None], masses[some, None]
            distances = distances * (mass * other / (mass + other).clamp(min=1e-30))
            out = (other <= 0) | (names[rows, None] == names)
            costs[some, rows], partners[some, rows] = distances.masked_fill(out, torch.inf).min(2)
    empty = counts <= 0
    return torch.where(empty, 0.0, costs), torch.where(empty, names, partners)


def relocate(
    sums: Tensor, counts: Tensor, upper_sums: Tensor, upper_counts: Tensor, patience: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Merge pairs of clusters and split others, wherever that pays.

    This is `kernels.relocation.relocate` in parallel: the cheapest merger pays for the best split,
    the second cheapest for the second best, and so on. No cluster takes part in two moves, so with
    a patience of 1 the error never rises.

    Args:
        sums: (batch, k, d), of the clusters' points.
        counts: (batch, k), the clusters' masses.
        upper_sums: (batch, k, d), of the half of each cluster that a split takes away.
        upper_counts: (batch, k), likewise.
        patience: (batch, 1): a split must gain more than this times what the merger costs.

    Returns:
        The sums and counts after the moves, and the number of moves, (batch,).
    """
    k = counts.shape[1]
    gains = split_gains(sums, counts, upper_sums, upper_counts).float()
    costs, partners = cheapest_mergers(sums, counts)
    costs = _disjoint(costs, partners)
    ordered, freed = costs.sort(dim=1, stable=True)
    best = gains.sort(dim=1, descending=True).values
    worthwhile = best > ordered * patience
    # A cluster that takes part in one of these mergers is not split.
    busy = torch.zeros_like(counts, dtype=torch.int32)
    busy.scatter_reduce_(1, freed, worthwhile.int(), "amax")
    busy.scatter_reduce_(1, partners.gather(1, freed), worthwhile.int(), "amax")
    best, split = torch.where(busy > 0, 0.0, gains).sort(dim=1, descending=True, stable=True)
    moves = worthwhile & (best > ordered * patience)
    # All other moves go to an additional cluster number k, which is dropped at the end.
    freed = torch.where(moves, freed, k)
    partner = torch.where(moves, partners.gather(1, freed.clamp(max=k - 1)), k)
    split = torch.where(moves, split, k)
    stacked = torch.cat([sums, counts[..., None]], 2)
    upper = torch.cat([upper_sums, upper_counts[..., None]], 2)
    dropped = torch.zeros_like(stacked[:, :1])
    stacked, upper = torch.cat([stacked, dropped], 1), torch.cat([upper, dropped], 1)
    leaving = _rows(upper, split)
    _set_rows(stacked, partner, _rows(stacked, partner) + _rows(stacked, freed))
    _set_rows(stacked, split, _rows(stacked, split) - leaving)
    _set_rows(stacked, freed, leaving)
    return stacked[:, :k, :-1], stacked[:, :k, -1], moves.sum(1)


def _disjoint(costs: Tensor, partners: Tensor) -> Tensor:
    """The costs of mergers that are the cheapest for both partners, and infinity for others."""
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

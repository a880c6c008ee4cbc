"""Relocation of centroids: two clusters are merged so that another one can be split."""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.vectors import (
    LANES,
    add,
    broadcast,
    divide,
    load,
    multiply,
    multiply_add,
    smaller,
    splat,
    store,
    subtract,
    where_smaller,
)

# The iterations that relocate centroids, and the part of a merger's cost that the split must make
# up for at once: Lloyd's iterations then lower the cost and raise the gain. Chosen between 0.6 and
# 0.8, the best of 0.4 to 1 on Gaussian and Laplace points, 4096 x 4 and 4096 x 8 with k = 16 and
# 256; lower values help k = 256 and hurt k = 16. Trained weights were not tried.
_FIRST_RELOCATION = 2
_LAST_RELOCATION = 7
_PATIENCE = 0.7


@compiled()
def patience(iteration, iterations):  # type: ignore[no-untyped-def]
    """The `patience` of `relocate` after an iteration, counted from 0; 0 means no relocation."""
    if iteration == iterations - 1:
        return 1.0
    return _PATIENCE if _FIRST_RELOCATION <= iteration <= _LAST_RELOCATION else 0.0


@compiled()
def widest(sums, counts, squares, axes, borders):  # type: ignore[no-untyped-def]
    """Write where to split each cluster: along its widest dimension, at its mean."""
    for j in range(sums.shape[0]):
        most = -1.0
        for dim in range(sums.shape[1]):
            mean = sums[j, dim] / counts[j] if counts[j] > 0.0 else 0.0
            spread = squares[j, dim] - sums[j, dim] * mean
            if spread > most:
                most = spread
                axes[j] = dim
                borders[j] = mean


@compiled()
def _between(sums, counts, i, other_sums, other_counts, j):  # type: ignore[no-untyped-def]
    """The rise of the error when two clusters are merged (Ward 1963)."""
    a, b = counts[i], other_counts[j]
    if a <= 0.0 or b <= 0.0:
        return 0.0
    square = 0.0
    for dim in range(sums.shape[1]):
        v = sums[i, dim] / a - other_sums[j, dim] / b
        square += v * v
    return square * a * b / (a + b)


@compiled()
def merge_partners(sums, counts):  # type: ignore[no-untyped-def]
    """(k,): the cheapest cluster for each to merge with; arbitrary where no other has points."""
    k, d = sums.shape
    stride = (k + LANES - 1) // LANES * LANES
    # Padding and empty clusters keep NaN, which is never the least.
    means = np.full(d * stride, np.nan, np.float32)
    mean = np.zeros(d, np.float32)
    masses = np.ones(stride, np.float32)
    for j in range(k):
        if counts[j] > 0.0:
            masses[j] = counts[j]
            for dim in range(d):
                means[dim * stride + j] = sums[j, dim] / counts[j]
    partners = np.empty(k, np.int64)
    costs = np.empty(LANES, np.float32)
    firsts = np.empty(LANES, np.int32)
    for j in range(k):
        for dim in range(d):
            mean[dim] = means[dim * stride + j]
        means[j] = np.nan  # a cluster is not its own partner
        best, first = splat(np.float32(np.inf)), splat(np.int32(-1))
        mass = broadcast(masses, j)
        for start in range(0, stride, LANES):
            square = splat(np.float32(0.0))
            position = start
            for dim in range(d):
                v = subtract(load(means, position), broadcast(mean, dim))
                square = multiply_add(v, v, square)
                position += stride
            others = load(masses, start)
            cost = divide(multiply(square, multiply(mass, others)), add(mass, others))
            first = where_smaller(cost, best, splat(np.int32(start)), first)
            best = smaller(cost, best)
        store(costs, 0, best)
        store(firsts, 0, first)
        means[j] = mean[0]
        partners[j] = k - 1 if j == 0 else 0
        least = np.float32(np.inf)
        for lane in range(LANES):
            if firsts[lane] >= 0 and costs[lane] < least:
                least = costs[lane]
                partners[j] = firsts[lane] + lane
    return partners


@compiled()
def relocate(sums, counts, upper_sums, upper_counts, patience):  # type: ignore[no-untyped-def]
    """Merge two clusters and split another one, wherever that pays; return the number of moves.

    Lloyd's iterations cannot move a centroid from where there are too many to where there are too
    few; this does, and it fills empty clusters. A move is made where the split gains more than
    `patience` times what the merger costs; with a patience of 1 the error never rises. upper_*:
    sums and counts of the half of each cluster that a split takes away. Changes sums (k, d) and
    counts (k).
    """
    k, d = sums.shape
    partners = merge_partners(sums, counts)
    costs = np.empty(k, np.float64)
    gains = np.empty(k, np.float64)
    for j in range(k):
        costs[j] = _between(sums, counts, j, sums, counts, partners[j])
        # The half that leaves, against the half that stays.
        for dim in range(d):
            sums[j, dim] -= upper_sums[j, dim]
        counts[j] -= upper_counts[j]
        gains[j] = _between(sums, counts, j, upper_sums, upper_counts, j)
        for dim in range(d):
            sums[j, dim] += upper_sums[j, dim]
        counts[j] += upper_counts[j]
    moved = 0
    while True:
        split, freed = np.argmax(gains), np.argmin(costs)
        if not gains[split] > costs[freed] * patience:
            return moved
        partner = partners[freed]
        if partner == split or freed == split or costs[partner] == np.inf:
            # A cluster takes part in one move only: the second merger that needs it is dropped.
            costs[freed] = np.inf
            continue
        moved += 1
        if counts[freed] > 0.0:
            counts[partner] += counts[freed]
            for dim in range(d):
                sums[partner, dim] += sums[freed, dim]
            costs[partner] = np.inf
            gains[partner] = 0.0
        counts[freed] = upper_counts[split]
        counts[split] -= upper_counts[split]
        for dim in range(d):
            sums[freed, dim] = upper_sums[split, dim]
            sums[split, dim] -= upper_sums[split, dim]
        costs[freed] = costs[split] = np.inf
        gains[freed] = gains[split] = 0.0

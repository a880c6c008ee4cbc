"""Lloyd's k-means on one problem: seeding, sweeps, updates, relocation; as kernels.

All of them work on a copy of the points that is centred, scaled to around 1, and padded to whole
vectors with points of weight zero: x, contiguous float32, coordinate l of point i at
l·stride + i, stride a multiple of `PART`.
"""

import numpy as np
from numba import njit

from vqzoo.numerics.kernels.nearest import nearest, padded_count, prepare, scale_of
from vqzoo.numerics.kernels.seeding import generator, seed_plus_plus
from vqzoo.numerics.kernels.vectors import (
    LANES,
    add,
    broadcast,
    divide,
    load,
    multiply,
    multiply_add,
    row_stride,
    smaller,
    splat,
    store,
    subtract,
    total,
    where_smaller,
)

# When centroids are relocated, and for which part of the merger's cost the split must make up at
# once: Lloyd's iterations cheapen the one and improve the other. Chosen between 0.6 and 0.8, the
# best of 0.4 to 1 on Gaussian and Laplace points, 4096 x 4 and 4096 x 8 with k = 16 and 256; lower
# values help k = 256 and hurt k = 16. Trained weights were not tried.
_FIRST_RELOCATION = 2
_LAST_RELOCATION = 7
_PATIENCE = 0.7


@njit(nogil=True, cache=True)
def center(points, offset, x, stride):  # type: ignore[no-untyped-def]
    """Copy points (d, n) into x, centred and scaled; returns the scale, fills `offset` (d).

    x must hold zeros. Raises ValueError where a point is not finite.
    """
    d, n = points.shape
    largest = 0.0
    for dim in range(d):
        mean = 0.0
        for i in range(n):
            mean += points[dim, i]
        offset[dim] = mean / n
        if not np.isfinite(mean):
            raise ValueError("points must be finite")
        far = np.float32(0.0)
        for i in range(n):
            far = max(far, abs(points[dim, i] - offset[dim]))
        largest = max(largest, far)
    scale = scale_of(largest)
    for dim in range(d):
        for i in range(n):
            x[dim * stride + i] = (points[dim, i] - offset[dim]) * scale
    return scale


@njit(nogil=True, cache=True)
def squared_norms(x, stride, d, weights):  # type: ignore[no-untyped-def]
    """Σ w·|x|²."""
    result = 0.0
    for dim in range(d):
        for i in range(0, stride, LANES):
            v = load(x, dim * stride + i)
            result += total(multiply(multiply(v, v), load(weights, i)))
    return result


@njit(nogil=True, cache=True)
def sweep(x, stride, start, stop, d, weights, negated, halves, codes, sums, counts):  # type: ignore[no-untyped-def]
    """Assign points start:stop (whole vectors) and add them up by cluster.

    Writes codes[start:stop]; adds to sums (k, d) and counts (k), float64. Returns Σ 2·w·s.
    """
    result = _assign(x, stride, start, stop, d, weights, negated, halves, codes)
    _add_up(x, stride, start, stop, weights, codes, sums, counts)
    return result


@njit(nogil=True, cache=True)
def _assign(x, stride, start, stop, d, weights, negated, halves, codes):  # type: ignore[no-untyped-def]
    """Apart from `_add_up`: in one loop with it, the accumulators of `nearest` leave registers."""
    tile_codes = np.empty(LANES, np.int32)
    scores = np.empty(LANES, np.float32)
    result = 0.0
    for first in range(start, stop, LANES):
        nearest(x, stride, first, d, negated, halves, tile_codes, scores)
        result += total(multiply(load(scores, 0), load(weights, first)))
        for i in range(LANES):
            codes[first + i] = tile_codes[i]
    return 2.0 * result


@njit(nogil=True, cache=True)
def _add_up(x, stride, start, stop, weights, codes, sums, counts):  # type: ignore[no-untyped-def]
    for i in range(start, stop):
        code = codes[i]
        w = np.float64(weights[i])
        counts[code] += w
        for dim in range(sums.shape[1]):
            sums[code, dim] += w * x[dim * stride + i]


@njit(nogil=True, cache=True)
def add_squares(x, stride, start, stop, weights, codes, squares):  # type: ignore[no-untyped-def]
    """Add w·x² of points start:stop to squares (k, d), float64."""
    for dim in range(squares.shape[1]):
        for i in range(start, stop):
            v = np.float64(x[dim * stride + i])
            squares[codes[i], dim] += weights[i] * v * v


@njit(nogil=True, cache=True)
def widest(sums, counts, squares, axes, borders):  # type: ignore[no-untyped-def]
    """Where to split each cluster: along the dimension it is widest in, at its mean."""
    for j in range(sums.shape[0]):
        most = -1.0
        for dim in range(sums.shape[1]):
            mean = sums[j, dim] / counts[j] if counts[j] > 0.0 else 0.0
            spread = squares[j, dim] - sums[j, dim] * mean
            if spread > most:
                most = spread
                axes[j] = dim
                borders[j] = mean


@njit(nogil=True, cache=True)
def add_upper(x, stride, start, stop, weights, codes, axes, borders, sums, counts):  # type: ignore[no-untyped-def]
    """`sweep`'s sums, of the points above their cluster's border alone."""
    for i in range(start, stop):
        code = codes[i]
        if x[axes[code] * stride + i] > borders[code]:
            w = np.float64(weights[i])
            counts[code] += w
            for dim in range(sums.shape[1]):
                sums[code, dim] += w * x[dim * stride + i]


@njit(nogil=True, cache=True)
def _between(sums, counts, i, other_sums, other_counts, j):  # type: ignore[no-untyped-def]
    """What two clusters' errors rise by when they share a mean (Ward 1963)."""
    a, b = counts[i], other_counts[j]
    if a <= 0.0 or b <= 0.0:
        return 0.0
    square = 0.0
    for dim in range(sums.shape[1]):
        v = sums[i, dim] / a - other_sums[j, dim] / b
        square += v * v
    return square * a * b / (a + b)


@njit(nogil=True, cache=True)
def merge_partners(sums, counts):  # type: ignore[no-untyped-def]
    """(k,): the cluster that each would cost the least to merge with; any where none has points."""
    k, d = sums.shape
    stride = (k + LANES - 1) // LANES * LANES
    means = np.full(d * stride, np.nan, np.float32)  # of the padding and empty clusters: never less
    own = np.zeros(d, np.float32)
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
            own[dim] = means[dim * stride + j]
        means[j] = np.nan  # nor is it its own partner
        best, first = splat(np.float32(np.inf)), splat(np.int32(-1))
        mass = broadcast(masses, j)
        for start in range(0, stride, LANES):
            square = splat(np.float32(0.0))
            position = start
            for dim in range(d):
                v = subtract(load(means, position), broadcast(own, dim))
                square = multiply_add(v, v, square)
                position += stride
            others = load(masses, start)
            cost = divide(multiply(square, multiply(mass, others)), add(mass, others))
            first = where_smaller(cost, best, splat(np.int32(start)), first)
            best = smaller(cost, best)
        store(costs, 0, best)
        store(firsts, 0, first)
        means[j] = own[0]
        partners[j] = k - 1 if j == 0 else 0
        least = np.float32(np.inf)
        for lane in range(LANES):
            if firsts[lane] >= 0 and costs[lane] < least:
                least = costs[lane]
                partners[j] = firsts[lane] + lane
    return partners


@njit(nogil=True, cache=True)
def relocate(sums, counts, upper_sums, upper_counts, patience):  # type: ignore[no-untyped-def]
    """Merge two clusters and split another one, wherever that pays; returns how often.

    Lloyd's iterations cannot take a centroid from where there are too many to where there are too
    few; this does, and it fills empty clusters. A move is made where the split gains more than
    `patience` times what the merger costs: with 1 the error never rises. upper_*: of the half of
    each cluster that a split takes away. Changes sums (k, d) and counts (k).
    """
    k, d = sums.shape
    partners = merge_partners(sums, counts)
    costs = np.empty(k, np.float64)
    gains = np.empty(k, np.float64)
    for j in range(k):
        costs[j] = _between(sums, counts, j, sums, counts, partners[j])
        # The half that leaves against the half that stays.
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
            # Every cluster takes part in one move: which of two overlapping ones is let go?
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


@njit(nogil=True, cache=True)
def update(sums, counts, centroids):  # type: ignore[no-untyped-def]
    """Move each centroid to its cluster's mean; an empty cluster's stays."""
    k, d = centroids.shape
    for j in range(k):
        if counts[j] > 0.0:
            for dim in range(d):
                centroids[j, dim] = sums[j, dim] / counts[j]


@njit(nogil=True, cache=True)
def _copy(source, target):  # type: ignore[no-untyped-def]
    """target = source, (k, d); numba takes seconds to compile the slice assignment."""
    for j in range(source.shape[0]):
        for dim in range(source.shape[1]):
            target[j, dim] = source[j, dim]


@njit(nogil=True, cache=True)
def patience(iteration, iterations):  # type: ignore[no-untyped-def]
    """What `relocate` is to be called with after an iteration, counted from 0; 0 for not at all."""
    if iteration == iterations - 1:
        return 1.0
    return _PATIENCE if _FIRST_RELOCATION <= iteration <= _LAST_RELOCATION else 0.0


@njit(nogil=True, cache=True)
def lloyd(x, stride, n, d, weights, iterations, tolerance, centroids):  # type: ignore[no-untyped-def]
    """Lloyd's iterations from centroids (k, d), until the error falls by less than `tolerance`.

    Of the points none but padding lies behind number n.
    Relocations that the next iteration finds to have raised the error are taken back.
    """
    k = centroids.shape[0]
    stop = (n + LANES - 1) // LANES * LANES
    padded = padded_count(k)
    negated = np.empty(padded * d, np.float32)
    halves = np.empty(padded, np.float32)
    codes = np.empty(stride, np.int32)
    sums = np.empty((k, d), np.float64)
    counts = np.empty(k, np.float64)
    squares = np.empty((k, d), np.float64)
    axes = np.zeros(k, np.int64)
    borders = np.zeros(k, np.float64)
    upper_sums = np.empty((k, d), np.float64)
    upper_counts = np.empty(k, np.float64)
    kept = np.empty((k, d), np.float64)
    norms = squared_norms(x, stride, d, weights)
    previous = np.inf
    relocated = 0
    for iteration in range(iterations):
        prepare(centroids, negated, halves)
        sums[:] = 0.0
        counts[:] = 0.0
        error = norms + sweep(x, stride, 0, stop, d, weights, negated, halves, codes, sums, counts)
        if relocated > 0 and error > previous:
            _copy(kept, centroids)
            relocated = 0
            continue
        if relocated == 0 and previous - error <= tolerance * error:
            break
        previous = error
        update(sums, counts, centroids)
        relocated = 0
        patient = patience(iteration, iterations)
        if patient > 0.0:
            squares[:] = 0.0
            upper_sums[:] = 0.0
            upper_counts[:] = 0.0
            add_squares(x, stride, 0, n, weights, codes, squares)
            widest(sums, counts, squares, axes, borders)
            add_upper(x, stride, 0, n, weights, codes, axes, borders, upper_sums, upper_counts)
            relocated = relocate(sums, counts, upper_sums, upper_counts, patient)
            if relocated > 0:
                _copy(centroids, kept)
                update(sums, counts, centroids)


@njit(nogil=True, cache=True)
def padded_weights(weights, masses):  # type: ignore[no-untyped-def]
    """Copy weights (n) into masses (stride), zeros after n; all equal where they are all zero."""
    n = weights.shape[0]
    largest = np.float32(0.0)
    for i in range(n):
        masses[i] = weights[i]
        largest = max(largest, weights[i])
    if largest <= 0.0:
        for i in range(n):
            masses[i] = 1.0


@njit(nogil=True, cache=True)
def uncenter(found, scale, offset, centroids):  # type: ignore[no-untyped-def]
    """Undo `center` on centroids (k, d)."""
    for j in range(found.shape[0]):
        for dim in range(found.shape[1]):
            centroids[j, dim] = found[j, dim] / scale + offset[dim]


@njit(nogil=True, cache=True)
def lloyd_many(points, weights, seed, first, iterations, tolerance, centroids):  # type: ignore[no-untyped-def]
    """k-means++ and `lloyd` on points (problems, d, n), numbers `first` on of their batch.

    weights: (problems, n) float32. Writes centroids (problems, k, d) float32.
    """
    problems, d, n = points.shape
    k = centroids.shape[1]
    stride = row_stride(n)
    x = np.zeros(d * stride, np.float32)
    offset = np.empty(d, np.float32)
    masses = np.zeros(stride, np.float32)
    found = np.empty((k, d), np.float64)
    for p in range(problems):
        scale = center(points[p], offset, x, stride)
        padded_weights(weights[p], masses)
        seed_plus_plus(x, stride, d, masses, generator(seed, first + p), found)
        lloyd(x, stride, n, d, masses, iterations, tolerance, found)
        uncenter(found, scale, offset, centroids[p])

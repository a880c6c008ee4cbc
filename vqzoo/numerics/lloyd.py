"""Lloyd's k-means on one problem: seeding, sweeps, updates, relocation; as kernels.

All of them work on a copy of the points that is centred, scaled to around 1, and padded to whole
vectors with points of weight zero: x, contiguous float32, coordinate l of point i at
l·stride + i, stride a multiple of `LANES`.
"""

import numpy as np
from numba import njit

from vqzoo.numerics.nearest import nearest, padded_count, prepare, scale_of
from vqzoo.numerics.vectors import (
    LANES,
    load,
    multiply,
    multiply_add,
    smaller,
    splat,
    store,
    subtract,
    total,
)

# When centroids are relocated, and for which part of the merger's cost the split must make up at
# once: Lloyd's iterations cheapen the one and improve the other. Chosen between 0.6 and 0.8, the
# best of 0.4 to 1 on Gaussian and Laplace points, 4096 x 4 and 4096 x 8 with k = 16 and 256; lower
# values help k = 256 and hurt k = 16. Trained weights were not tried.
_FIRST_RELOCATION = 2
_LAST_RELOCATION = 7
_PATIENCE = 0.7


@njit(nogil=True, cache=True)
def next_uniform(state):  # type: ignore[no-untyped-def]
    """A number in [0, 1), from a state of one uint64 (SplitMix64, Steele et al. 2014)."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(11)) * (1.0 / 9007199254740992.0)


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
def seed_plus_plus(x, stride, d, weights, state, centroids):  # type: ignore[no-untyped-def]
    """k-means++ (Arthur, Vassilvitskii 2007): each centroid a point drawn by w · squared distance.

    Where fewer than k points are distinct, the surplus centroids repeat drawn points.
    """
    k = centroids.shape[0]
    distances = np.empty(stride, np.float32)
    masses = np.empty(stride, np.float32)
    tiles = stride // LANES
    tile_masses = np.empty(tiles, np.float64)
    far = splat(np.float32(1e30))
    everything = 0.0
    for tile in range(tiles):
        w = load(weights, tile * LANES)
        store(distances, tile * LANES, far)
        store(masses, tile * LANES, w)
        tile_masses[tile] = total(w)
        everything += tile_masses[tile]
    for j in range(k):
        left = next_uniform(state) * everything
        tile = 0
        while tile < tiles - 1 and left >= tile_masses[tile]:
            left -= tile_masses[tile]
            tile += 1
        chosen = -1
        for i in range(tile * LANES, tile * LANES + LANES):
            if masses[i] > 0.0:
                chosen = i
                if left < masses[i]:
                    break
            left -= masses[i]
        if chosen < 0:  # rounding, or nothing left to draw: any point of weight will do
            chosen = int(next_uniform(state) * stride)
            while weights[chosen] <= 0.0:
                chosen = (chosen + 1) % stride
        for dim in range(d):
            centroids[j, dim] = x[dim * stride + chosen]
        everything = 0.0
        for tile in range(tiles):
            first = tile * LANES
            distance = splat(np.float32(0.0))
            for dim in range(d):
                v = subtract(load(x, dim * stride + first), splat(x[dim * stride + chosen]))
                distance = multiply_add(v, v, distance)
            distance = smaller(distance, load(distances, first))
            store(distances, first, distance)
            mass = multiply(distance, load(weights, first))
            store(masses, first, mass)
            tile_masses[tile] = total(mass)
            everything += tile_masses[tile]


@njit(nogil=True, cache=True)
def sweep(x, stride, start, stop, d, weights, negated, halves, codes, sums, counts):  # type: ignore[no-untyped-def]
    """Assign points start:stop (whole vectors) and add them up by cluster.

    Writes codes[start:stop]; adds to sums (k, d) and counts (k), float64. Returns Σ 2·w·s.
    """
    tile_codes = np.empty(LANES, np.int32)
    scores = np.empty(LANES, np.float32)
    result = 0.0
    for first in range(start, stop, LANES):
        nearest(x, stride, first, d, negated, halves, tile_codes, scores)
        result += total(multiply(load(scores, 0), load(weights, first)))
        for i in range(LANES):
            code = tile_codes[i]
            w = np.float64(weights[first + i])
            codes[first + i] = code
            counts[code] += w
            for dim in range(d):
                sums[code, dim] += w * x[dim * stride + first + i]
    return 2.0 * result


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
def relocate(sums, counts, upper_sums, upper_counts, patience):  # type: ignore[no-untyped-def]
    """Merge two clusters and split another one, wherever that pays; returns how often.

    Lloyd's iterations cannot take a centroid from where there are too many to where there are too
    few; this does, and it fills empty clusters. A move is made where the split gains more than
    `patience` times what the merger costs: with 1 the error never rises. upper_*: of the half of
    each cluster that a split takes away. Changes sums (k, d) and counts (k).
    """
    k, d = sums.shape
    columns = np.empty((d, k), np.float32)
    masses = np.empty(k, np.float32)
    for j in range(k):
        masses[j] = counts[j]
        for dim in range(d):
            columns[dim, j] = sums[j, dim] / counts[j] if counts[j] > 0.0 else 0.0
    costs = np.empty(k, np.float64)
    partners = np.empty(k, np.int64)
    gains = np.empty(k, np.float64)
    distances = np.empty(k, np.float32)
    for j in range(k):
        distances[:] = 0.0
        for dim in range(d):
            here = columns[dim, j]
            for i in range(k):
                v = columns[dim, i] - here
                distances[i] += v * v
        mass = masses[j]
        for i in range(k):
            distances[i] *= mass * masses[i] / (mass + masses[i] + np.float32(1e-30))
        distances[j] = np.inf
        partner = 0 if j > 0 else k - 1
        for i in range(k):
            if distances[i] < distances[partner] and masses[i] > 0.0:
                partner = i
        partners[j] = partner
        costs[j] = _between(sums, counts, j, sums, counts, partner)
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
def lloyd(x, stride, d, weights, iterations, tolerance, centroids):  # type: ignore[no-untyped-def]
    """Lloyd's iterations from centroids (k, d), until the error falls by less than `tolerance`.

    Relocations that the next iteration finds to have raised the error are taken back.
    """
    k = centroids.shape[0]
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
        error = norms + sweep(
            x, stride, 0, stride, d, weights, negated, halves, codes, sums, counts
        )
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
            add_squares(x, stride, 0, stride, weights, codes, squares)
            widest(sums, counts, squares, axes, borders)
            add_upper(x, stride, 0, stride, weights, codes, axes, borders, upper_sums, upper_counts)
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
def generator(seed, problem):  # type: ignore[no-untyped-def]
    """The state of `next_uniform` that problem number `problem` of a batch starts from."""
    state = np.empty(1, np.uint64)
    state[0] = np.uint64(seed) * np.uint64(0xD1342543DE82EF95) + np.uint64(problem)
    next_uniform(state)
    return state


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
    stride = (n + LANES - 1) // LANES * LANES
    x = np.zeros(d * stride, np.float32)
    offset = np.empty(d, np.float32)
    masses = np.zeros(stride, np.float32)
    found = np.empty((k, d), np.float64)
    for p in range(problems):
        scale = center(points[p], offset, x, stride)
        padded_weights(weights[p], masses)
        seed_plus_plus(x, stride, d, masses, generator(seed, first + p), found)
        lloyd(x, stride, d, masses, iterations, tolerance, found)
        uncenter(found, scale, offset, centroids[p])

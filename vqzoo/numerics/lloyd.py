"""Lloyd's k-means on one problem: seeding, sweeps, updates, repair; as kernels.

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
def repair(x, stride, d, weights, codes, centroids, sums, counts):  # type: ignore[no-untyped-def]
    """Give every empty cluster the point that costs the most where it is.

    That point then costs nothing, and the mean of the cluster it left fits the rest no worse: the
    error cannot rise. Where no point costs anything the cluster stays empty.
    """
    k = centroids.shape[0]
    costs = np.empty(0, np.float32)
    for j in range(k):
        if counts[j] > 0.0:
            continue
        if costs.shape[0] == 0:
            costs = np.zeros(stride, np.float32)
            for i in range(stride):
                for dim in range(d):
                    v = x[dim * stride + i] - centroids[codes[i], dim]
                    costs[i] += v * v * weights[i]
        worst = np.argmax(costs)
        if costs[worst] <= 0.0:
            return
        costs[worst] = 0.0
        w = np.float64(weights[worst])
        left = codes[worst]
        if counts[left] <= w:
            continue
        codes[worst] = j
        counts[left] -= w
        counts[j] = w
        for dim in range(d):
            v = np.float64(x[dim * stride + worst]) * w
            sums[left, dim] -= v
            sums[j, dim] = v


@njit(nogil=True, cache=True)
def update(sums, counts, centroids):  # type: ignore[no-untyped-def]
    """Move each centroid to its cluster's mean; an empty cluster's stays."""
    k, d = centroids.shape
    for j in range(k):
        if counts[j] > 0.0:
            for dim in range(d):
                centroids[j, dim] = sums[j, dim] / counts[j]


@njit(nogil=True, cache=True)
def lloyd(x, stride, d, weights, state, iterations, tolerance, centroids):  # type: ignore[no-untyped-def]
    """k-means++, then Lloyd's iterations until the error falls by less than `tolerance` of it."""
    k = centroids.shape[0]
    padded = padded_count(k)
    negated = np.empty(padded * d, np.float32)
    halves = np.empty(padded, np.float32)
    codes = np.empty(stride, np.int32)
    sums = np.empty((k, d), np.float64)
    counts = np.empty(k, np.float64)
    seed_plus_plus(x, stride, d, weights, state, centroids)
    norms = squared_norms(x, stride, d, weights)
    previous = np.inf
    for _ in range(iterations):
        prepare(centroids, negated, halves)
        sums[:] = 0.0
        counts[:] = 0.0
        error = norms + sweep(
            x, stride, 0, stride, d, weights, negated, halves, codes, sums, counts
        )
        repair(x, stride, d, weights, codes, centroids, sums, counts)
        update(sums, counts, centroids)
        if previous - error <= tolerance * error:
            break
        previous = error


@njit(nogil=True, cache=True)
def lloyd_many(points, weights, seed, first, iterations, tolerance, centroids):  # type: ignore[no-untyped-def]
    """`lloyd` on points (problems, d, n), numbers `first`, `first` + 1, ... of their batch.

    weights: (problems, n) float32, or (0, 0) for none. Writes centroids (problems, k, d) float32.
    """
    problems, d, n = points.shape
    k = centroids.shape[1]
    stride = (n + LANES - 1) // LANES * LANES
    x = np.zeros(d * stride, np.float32)
    offset = np.empty(d, np.float32)
    masses = np.zeros(stride, np.float32)
    found = np.empty((k, d), np.float64)
    state = np.empty(1, np.uint64)
    for p in range(problems):
        scale = center(points[p], offset, x, stride)
        mass = 0.0
        for i in range(n):
            masses[i] = weights[p, i] if weights.shape[0] > 0 else np.float32(1.0)
            mass += masses[i]
        if mass <= 0.0:
            masses[:n] = 1.0
        state[0] = np.uint64(seed) * np.uint64(0xD1342543DE82EF95) + np.uint64(first + p)
        next_uniform(state)
        lloyd(x, stride, d, masses, state, iterations, tolerance, found)
        for j in range(k):
            for dim in range(d):
                centroids[p, j, dim] = found[j, dim] / scale + offset[dim]

"""The innermost loop of clustering: the nearest of k centroids, for many points of few dimensions.

Points are dimension-major, (d, n), so that one vector holds the same coordinate of `LANES` points.
With s_j(x) = |c_j|²/2 - x·c_j, the squared distance is 2·s_j(x) + |x|²: the nearest centroid has
the smallest s_j, which takes d multiply-adds a pair. No distance is ever written to memory.
"""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.padded_points import scale_of
from vqzoo.numerics.kernels.vectors import (
    LANES,
    broadcast,
    load,
    multiply_add,
    smaller,
    splat,
    store,
    where_smaller,
)

GROUP = 4  # centroids that share one load of the points
_FAR = np.float32(3e38)


@compiled()
def padded_count(k: int) -> int:
    """k, rounded up to whole groups of `GROUP` centroids."""
    return (k + GROUP - 1) // GROUP * GROUP


@compiled()
def prepare(centroids, negated, halves):  # type: ignore[no-untyped-def]
    """Lay out centroids (k, d) for `nearest`.

    negated: (padded k · d) float32, -c in groups of four centroids, dimension by dimension;
    halves: (padded k) float32, |c|²/2, and for the padding a number too large to be chosen.
    """
    k, d = centroids.shape
    for j in range(halves.shape[0]):
        group = j // GROUP * GROUP * d + j % GROUP
        square = 0.0
        for dim in range(d):
            value = float(centroids[j, dim]) if j < k else 0.0
            negated[group + dim * GROUP] = -value
            square += value * value
        halves[j] = 0.5 * square if j < k else _FAR


@compiled()
def nearest(points, stride, start, d, negated, halves, codes, scores):  # type: ignore[no-untyped-def]
    """Find the nearest centroids of the `LANES` points at flat position `start` of `points`.

    points: contiguous float32, coordinate l of point i at l·stride + i. Writes `LANES` codes
    (int32), the lowest where several are equally near, and the smallest s_j (float32).
    """
    best = splat(_FAR)
    best_code = splat(np.int32(0))
    at = 0
    for j in range(0, halves.shape[0], GROUP):
        s0 = broadcast(halves, j)
        s1 = broadcast(halves, j + 1)
        s2 = broadcast(halves, j + 2)
        s3 = broadcast(halves, j + 3)
        position = start
        for _ in range(d):
            x = load(points, position)
            s0 = multiply_add(x, broadcast(negated, at), s0)
            s1 = multiply_add(x, broadcast(negated, at + 1), s1)
            s2 = multiply_add(x, broadcast(negated, at + 2), s2)
            s3 = multiply_add(x, broadcast(negated, at + 3), s3)
            at += GROUP
            position += stride
        best_code = where_smaller(s0, best, splat(np.int32(j)), best_code)
        best = smaller(s0, best)
        best_code = where_smaller(s1, best, splat(np.int32(j + 1)), best_code)
        best = smaller(s1, best)
        best_code = where_smaller(s2, best, splat(np.int32(j + 2)), best_code)
        best = smaller(s2, best)
        best_code = where_smaller(s3, best, splat(np.int32(j + 3)), best_code)
        best = smaller(s3, best)
    store(codes, 0, best_code)
    store(scores, 0, best)


@compiled()
def fill_tile(points, start, stop, offset, scale, tile):  # type: ignore[no-untyped-def]
    """Copy points (d, n)[:, start:stop], shifted and scaled, to tile (d · LANES); pad with 0."""
    count = stop - start
    for dim in range(points.shape[0]):
        shift = offset[dim]
        for i in range(count):
            tile[dim * LANES + i] = (points[dim, start + i] - shift) * scale
        for i in range(count, LANES):
            tile[dim * LANES + i] = 0.0


@compiled()
def assign_many(points, centroids, start, codes8, codes32):  # type: ignore[no-untyped-def]
    """Write the codes of points (problems, d, n) among centroids (problems, k, d).

    They go, from number `start` on, to codes8 (problems, all points) unless it is empty, else to
    codes32.
    """
    problems, k, d = centroids.shape
    narrow = codes8.shape[0] > 0
    padded = padded_count(k)
    negated = np.empty(padded * d, np.float32)
    halves = np.empty(padded, np.float32)
    moved = np.empty((k, d), np.float64)
    offset = np.empty(d, np.float32)
    tile = np.empty(d * LANES, np.float32)
    codes = np.empty(LANES, np.int32)
    scores = np.empty(LANES, np.float32)
    for p in range(problems):
        # Relative to the centroids' mean: far from the origin s_j would lose its digits.
        largest = 0.0
        for dim in range(d):
            mean = 0.0
            for j in range(k):
                mean += centroids[p, j, dim] / k
            offset[dim] = mean
            for j in range(k):
                largest = max(largest, abs(centroids[p, j, dim] - offset[dim]))
        scale = scale_of(largest)
        for j in range(k):
            for dim in range(d):
                moved[j, dim] = (float(centroids[p, j, dim]) - offset[dim]) * scale
        prepare(moved, negated, halves)
        for first in range(0, points.shape[2], LANES):
            last = min(first + LANES, points.shape[2])
            fill_tile(points[p], first, last, offset, scale, tile)
            nearest(tile, LANES, 0, d, negated, halves, codes, scores)
            if narrow:
                for i in range(last - first):
                    codes8[p, start + first + i] = codes[i]
            else:
                for i in range(last - first):
                    codes32[p, start + first + i] = codes[i]

"""Lloyd's k-means as kernels: k-means++, then iterations of sweeps, updates and relocation."""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.nearest import padded_count, prepare
from vqzoo.numerics.kernels.padded_points import center, pad_weights, row_stride, uncenter
from vqzoo.numerics.kernels.relocation import patience, relocate, widest
from vqzoo.numerics.kernels.seeding import generator, seed_plus_plus
from vqzoo.numerics.kernels.sweeps import add_squares, add_upper, squared_norms, sweep
from vqzoo.numerics.kernels.vectors import LANES


@compiled()
def update(sums, counts, centroids):  # type: ignore[no-untyped-def]
    """Move each centroid to the mean of its cluster; that of an empty cluster stays."""
    k, d = centroids.shape
    for j in range(k):
        if counts[j] > 0.0:
            for dim in range(d):
                centroids[j, dim] = sums[j, dim] / counts[j]


@compiled()
def _copy(source, target):  # type: ignore[no-untyped-def]
    """target = source, (k, d); numba takes seconds to compile the slice assignment."""
    for j in range(source.shape[0]):
        for dim in range(source.shape[1]):
            target[j, dim] = source[j, dim]


@compiled()
def lloyd(x, stride, n, d, weights, iterations, tolerance, centroids):  # type: ignore[no-untyped-def]
    """Run Lloyd's iterations from centroids (k, d) until the error falls by less than `tolerance`.

    Points from number n on are padding. A relocation is undone if the next iteration finds that it
    raised the error.
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
        threshold = patience(iteration, iterations)
        if threshold > 0.0:
            squares[:] = 0.0
            upper_sums[:] = 0.0
            upper_counts[:] = 0.0
            add_squares(x, stride, 0, n, weights, codes, squares)
            widest(sums, counts, squares, axes, borders)
            add_upper(x, stride, 0, n, weights, codes, axes, borders, upper_sums, upper_counts)
            relocated = relocate(sums, counts, upper_sums, upper_counts, threshold)
            if relocated > 0:
                _copy(centroids, kept)
                update(sums, counts, centroids)


@compiled()
def lloyd_many(points, weights, seed, first, iterations, tolerance, centroids):  # type: ignore[no-untyped-def]
    """k-means++ and `lloyd` on points (problems, d, n), the problems from `first` on of a batch.

    weights: (problems, n) float32. Writes centroids (problems, k, d) float32.
    """
    problems, d, n = points.shape
    k = centroids.shape[1]
    stride = row_stride(n)
    x = np.zeros(d * stride, np.float32)
    offset = np.empty(d, np.float32)
    masses = np.zeros(stride, np.float32)
    scaled = np.empty((k, d), np.float64)
    for p in range(problems):
        scale = center(points[p], offset, x, stride)
        pad_weights(weights[p], masses)
        seed_plus_plus(x, stride, d, masses, generator(seed, first + p), scaled)
        lloyd(x, stride, n, d, masses, iterations, tolerance, scaled)
        uncenter(scaled, scale, offset, centroids[p])

"""Passes over the points of a problem: assignment, and sums by cluster.

Points x, their `stride` and their weights are those of `padded_points`.
"""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.nearest import nearest
from vqzoo.numerics.kernels.vectors import LANES, load, multiply, total


@compiled()
def squared_norms(x, stride, d, weights):  # type: ignore[no-untyped-def]
    """Σ w·|x|²."""
    result = 0.0
    for dim in range(d):
        for i in range(0, stride, LANES):
            v = load(x, dim * stride + i)
            result += total(multiply(multiply(v, v), load(weights, i)))
    return result


@compiled()
def sweep(x, stride, start, stop, d, weights, negated, halves, codes, sums, counts):  # type: ignore[no-untyped-def]
    """Assign points start:stop (whole vectors) and add them to the sums of their clusters.

    Writes codes[start:stop]; adds to sums (k, d) and counts (k), float64. Returns Σ 2·w·s, with s
    as in `nearest`.
    """
    result = _assign(x, stride, start, stop, d, weights, negated, halves, codes)
    _add_up(x, stride, start, stop, weights, codes, sums, counts)
    return result


@compiled()
def _assign(x, stride, start, stop, d, weights, negated, halves, codes):  # type: ignore[no-untyped-def]
    """Separate from `_add_up`: in one loop, the accumulators of `nearest` would leave registers."""
    tile_codes = np.empty(LANES, np.int32)
    scores = np.empty(LANES, np.float32)
    result = 0.0
    for first in range(start, stop, LANES):
        nearest(x, stride, first, d, negated, halves, tile_codes, scores)
        result += total(multiply(load(scores, 0), load(weights, first)))
        for i in range(LANES):
            codes[first + i] = tile_codes[i]
    return 2.0 * result


@compiled()
def _add_up(x, stride, start, stop, weights, codes, sums, counts):  # type: ignore[no-untyped-def]
    for i in range(start, stop):
        code = codes[i]
        w = np.float64(weights[i])
        counts[code] += w
        for dim in range(sums.shape[1]):
            sums[code, dim] += w * x[dim * stride + i]


@compiled()
def add_squares(x, stride, start, stop, weights, codes, squares):  # type: ignore[no-untyped-def]
    """Add w·x² of points start:stop to squares (k, d), float64."""
    for dim in range(squares.shape[1]):
        for i in range(start, stop):
            v = np.float64(x[dim * stride + i])
            squares[codes[i], dim] += weights[i] * v * v


@compiled()
def add_upper(x, stride, start, stop, weights, codes, axes, borders, sums, counts):  # type: ignore[no-untyped-def]
    """The sums of `sweep`, but only of points above their cluster's border."""
    for i in range(start, stop):
        code = codes[i]
        if x[axes[code] * stride + i] > borders[code]:
            w = np.float64(weights[i])
            counts[code] += w
            for dim in range(sums.shape[1]):
                sums[code, dim] += w * x[dim * stride + i]

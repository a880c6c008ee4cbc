"""Beam search for residual codes, and the sums that the refit of the codebooks needs."""

import numpy as np
from numba import njit

from vqzoo.numerics.vectors import LANES, load, multiply_add, splat, store

_FAR = np.float32(3e38)


@njit(nogil=True, cache=True)
def transpose_codebooks(codebooks, columns, halves):  # type: ignore[no-untyped-def]
    """Lay out codebooks (stages, k, d) for `beam_encode`.

    columns: (stages, d, padded k), -c dimension by dimension; halves: (stages, padded k), |c|²/2,
    out of reach for the padding.
    """
    stages, k, d = codebooks.shape
    columns[:] = 0.0
    halves[:] = _FAR
    for stage in range(stages):
        for j in range(k):
            square = 0.0
            for dim in range(d):
                value = np.float64(codebooks[stage, j, dim])
                columns[stage, dim, j] = -value
                square += value * value
            halves[stage, j] = 0.5 * square


@njit(nogil=True, cache=True)
def _score(residual, columns, halves, stage, scores):  # type: ignore[no-untyped-def]
    d, padded = columns.shape[1], columns.shape[2]
    for j in range(0, padded, LANES):
        at = stage * d * padded + j
        score = load(halves, stage * padded + j)
        for dim in range(d):
            score = multiply_add(splat(residual[dim]), load(columns, at), score)
            at += padded
        store(scores, j, score)


@njit(nogil=True, cache=True)
def beam_encode(points, start, stop, columns, halves, width, codes):  # type: ignore[no-untyped-def]
    """Write codes (stages, n)[:, start:stop] of points (d, n): a beam of `width` partial codes."""
    d = points.shape[0]
    stages, _, padded = columns.shape
    residuals = np.empty((width, d), np.float32)
    fresh = np.empty((width, d), np.float32)
    errors = np.empty(width, np.float32)
    paths = np.empty((width, stages), np.int32)
    fresh_errors = np.empty(width, np.float32)
    fresh_paths = np.empty((width, stages), np.int32)
    scores = np.empty((width, padded), np.float32)
    best = np.empty(width, np.int64)
    for i in range(start, stop):
        for dim in range(d):
            residuals[0, dim] = points[dim, i]
        errors[0] = 0.0
        entries = 1
        for stage in range(stages):
            for e in range(entries):
                _score(residuals[e], columns, halves, stage, scores[e])
                best[e] = np.argmin(scores[e])
            wanted = 1 if stage == stages - 1 else width
            found = 0
            while found < wanted:
                chosen = 0
                error = errors[0] + scores[0, best[0]]
                for e in range(1, entries):
                    if errors[e] + scores[e, best[e]] < error:
                        chosen = e
                        error = errors[e] + scores[e, best[e]]
                code = best[chosen]
                if scores[chosen, code] >= np.float32(1e38):
                    break
                for dim in range(d):
                    fresh[found, dim] = residuals[chosen, dim] + columns[stage, dim, code]
                fresh_errors[found] = error
                for t in range(stage):
                    fresh_paths[found, t] = paths[chosen, t]
                fresh_paths[found, stage] = code
                found += 1
                if found < wanted:
                    scores[chosen, code] = _FAR
                    best[chosen] = np.argmin(scores[chosen])
            residuals, fresh = fresh, residuals
            errors, fresh_errors = fresh_errors, errors
            paths, fresh_paths = fresh_paths, paths
            entries = found
        for stage in range(stages):
            codes[stage, i] = paths[0, stage]


@njit(nogil=True, cache=True)
def reconstruct(codes, codebooks, result):  # type: ignore[no-untyped-def]
    """result (d, n) = Σ over stages of codebooks (stages, k, d)[stage, codes[stage]]."""
    stages, n = codes.shape
    d = codebooks.shape[2]
    result[:] = 0.0
    for stage in range(stages):
        for i in range(n):
            code = codes[stage, i]
            for dim in range(d):
                result[dim, i] += codebooks[stage, code, dim]


@njit(nogil=True, cache=True)
def gather(values, weights, codes, sums):  # type: ignore[no-untyped-def]
    """Add w·values (d, n) to sums (stages, k, d), each stage by its own codes."""
    d, n = values.shape
    for stage in range(codes.shape[0]):
        for i in range(n):
            code = codes[stage, i]
            w = np.float64(weights[i])
            for dim in range(d):
                sums[stage, code, dim] += w * values[dim, i]

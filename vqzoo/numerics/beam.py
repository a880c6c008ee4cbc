"""Beam search for residual codes, and the sums that the refit of the codebooks needs."""

import numpy as np
from numba import njit

from vqzoo.numerics.nearest import GROUP, nearest
from vqzoo.numerics.vectors import (
    LANES,
    above,
    add,
    greater,
    lesser,
    load,
    load_ints,
    multiply,
    multiply_add,
    splat,
    store,
    tagged,
)

_LARGEST = np.int32(2**31 - 1)
_PASS = 4  # partial codes that one pass finds


@njit(nogil=True, cache=True)
def _half_norms(residuals, start, d):  # type: ignore[no-untyped-def]
    """|r|²/2 of the `LANES` residuals at flat position `start`, (d, LANES)."""
    norms = splat(np.float32(0.0))
    for dim in range(d):
        r = load(residuals, start + dim * LANES)
        norms = multiply_add(multiply(r, splat(np.float32(0.5))), r, norms)
    return norms


@njit(nogil=True, cache=True)
def _extend(residuals, entry, d, negated, halves, stage, k, tag_bits, code_bits, found):  # type: ignore[no-untyped-def]
    """Let partial code `entry` of `LANES` points propose its extensions by a stage's centroids.

    found: (_PASS + 1, LANES) int32; row 0 holds floors, the others the lowest proposals above
    them in ascending order, of this entry and those before. A proposal is half its squared error
    (positive, as a float's bits) with the low `tag_bits` replaced by entry and code. The errors'
    order is so known to 23 - tag_bits bits, which is plenty for a beam.
    """
    padded = halves.shape[1]
    mask = splat(np.int32(-1 << tag_bits))
    start = entry * d * LANES
    norms = _half_norms(residuals, start, d)
    floor = load_ints(found, 0)
    first = load_ints(found, LANES)
    second = load_ints(found, 2 * LANES)
    third = load_ints(found, 3 * LANES)
    fourth = load_ints(found, 4 * LANES)
    for j in range(k):
        at = stage * padded * d + j // GROUP * GROUP * d + j % GROUP
        position = start
        score = add(norms, splat(halves[stage, j]))
        for _ in range(d):
            score = multiply_add(load(residuals, position), splat(negated[at]), score)
            at += GROUP
            position += LANES
        proposal = tagged(score, mask, splat(np.int32((entry << code_bits) | j)))
        proposal = above(proposal, floor)
        rest = greater(first, proposal)
        first = lesser(first, proposal)
        proposal = greater(second, rest)
        second = lesser(second, rest)
        rest = greater(third, proposal)
        third = lesser(third, proposal)
        fourth = lesser(fourth, rest)
    store(found, LANES, first)
    store(found, 2 * LANES, second)
    store(found, 3 * LANES, third)
    store(found, 4 * LANES, fourth)


@njit(nogil=True, cache=True)
def beam_encode(points, start, stop, k, negated, halves, width, codes):  # type: ignore[no-untyped-def]
    """Write codes (stages, n)[:, start:stop] of points (d, n): a beam of `width` partial codes.

    negated: (stages · padded k · d), halves: (stages, padded k): each stage's codebook as
    `nearest.prepare` lays it out.
    """
    d = points.shape[0]
    stages, padded = halves.shape
    code_bits, entry_bits = 0, 0
    while 1 << code_bits < k:
        code_bits += 1
    while 1 << entry_bits < width:
        entry_bits += 1
    residuals = np.empty((width, d, LANES), np.float32)
    extended = np.empty((width, d, LANES), np.float32)
    paths = np.empty((width, stages, LANES), np.int32)
    extended_paths = np.empty((width, stages, LANES), np.int32)
    found = np.empty((_PASS + 1, LANES), np.int32)
    tile_codes = np.empty(LANES, np.int32)
    scores = np.empty(LANES, np.float32)
    norms = np.empty(LANES, np.float32)
    errors = np.empty(LANES, np.float32)
    for begin in range(start, stop, LANES):
        count = min(LANES, stop - begin)
        for dim in range(d):
            for i in range(LANES):
                residuals[0, dim, i] = points[dim, begin + i] if i < count else np.float32(0.0)
        entries = 1
        for stage in range(stages - 1):
            wanted = min(width, entries * k)
            found[_PASS] = -_LARGEST
            for slot in range(wanted):
                row = slot % _PASS + 1
                if row == 1:
                    found[0] = found[_PASS]
                    found[1:] = _LARGEST
                    for entry in range(entries):
                        _extend(
                            residuals,
                            entry,
                            d,
                            negated,
                            halves,
                            stage,
                            k,
                            code_bits + entry_bits,
                            code_bits,
                            found,
                        )
                for i in range(LANES):
                    tag = found[row, i] & ((1 << (code_bits + entry_bits)) - 1)
                    entry = tag >> code_bits
                    code = tag & ((1 << code_bits) - 1)
                    at = stage * padded * d + code // GROUP * GROUP * d + code % GROUP
                    for dim in range(d):
                        extended[slot, dim, i] = residuals[entry, dim, i] + negated[at]
                        at += GROUP
                    for earlier in range(stage):
                        extended_paths[slot, earlier, i] = paths[entry, earlier, i]
                    extended_paths[slot, stage, i] = code
            residuals, extended = extended, residuals
            paths, extended_paths = extended_paths, paths
            entries = wanted
        # Of the last stage only the best counts.
        last = stages - 1
        for entry in range(entries):
            nearest(
                residuals,
                LANES,
                entry * d * LANES,
                d,
                negated[last * padded * d :],
                halves[last],
                tile_codes,
                scores,
            )
            store(norms, 0, _half_norms(residuals, entry * d * LANES, d))
            for i in range(count):
                error = scores[i] + norms[i]
                if entry == 0 or error < errors[i]:
                    errors[i] = error
                    for stage in range(last):
                        codes[stage, begin + i] = paths[entry, stage, i]
                    codes[last, begin + i] = tile_codes[i]


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
def add_rest(points, weights, codes, codebooks, start, stop, sums, masses):  # type: ignore[no-untyped-def]
    """Add w·(x - x̂) of points (d, n)[:, start:stop], and w, to where their codes point.

    x̂ = Σ over stages of codebooks (stages, k, d) by codes (stages, n); points (0, n) stand for
    zeros. sums: (stages, k, d) float64; masses: (stages, k) float64.
    """
    stages, _, d = codebooks.shape
    rest = np.empty(d, np.float64)
    given = points.shape[0] > 0
    for i in range(start, stop):
        for dim in range(d):
            rest[dim] = points[dim, i] if given else 0.0
        for stage in range(stages):
            code = codes[stage, i]
            for dim in range(d):
                rest[dim] -= codebooks[stage, code, dim]
        w = np.float64(weights[i])
        for stage in range(stages):
            code = codes[stage, i]
            masses[stage, code] += w
            for dim in range(d):
                sums[stage, code, dim] += w * rest[dim]

"""Beam search for residual codes, and the sums that refitting the codebooks needs."""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.int_vectors import (
    above,
    any_below,
    greater,
    lesser,
    load_ints,
    tagged,
)
from vqzoo.numerics.kernels.nearest import GROUP, nearest
from vqzoo.numerics.kernels.vectors import (
    LANES,
    add,
    broadcast,
    load,
    multiply,
    multiply_add,
    splat,
    store,
)

_LARGEST = np.int32(2**31 - 1)
_PASS = 8  # partial codes that one pass selects


@compiled()
def _half_norms(residuals, start, d):  # type: ignore[no-untyped-def]
    """|r|²/2 of `LANES` residuals (d, LANES) at flat position `start`."""
    norms = splat(np.float32(0.0))
    for dim in range(d):
        r = load(residuals, start + dim * LANES)
        norms = multiply_add(multiply(r, splat(np.float32(0.5))), r, norms)
    return norms


@compiled()
def _insert(proposal, best):  # type: ignore[no-untyped-def]
    """Insert a proposal in order into rows 1 to _PASS of `best`, and drop the last one there."""
    for row in range(1, _PASS + 1):
        other = load_ints(best, row * LANES)
        store(best, row * LANES, lesser(other, proposal))
        proposal = greater(other, proposal)


@compiled()
def _extend(residuals, entry, d, negated, halves, stage, tag_bits, code_bits, best):  # type: ignore[no-untyped-def]
    """Propose the extensions of partial code `entry` of `LANES` points by a stage's centroids.

    best: (_PASS + 1, LANES) int32; row 0 holds floors, the other rows, in ascending order, the
    lowest proposals above them, of this entry and those before it. A proposal is half its squared
    error (positive, as the bits of a float) with the low `tag_bits` replaced by entry and code.
    Errors are thus ordered to 23 - tag_bits bits, which is plenty for a beam. The padding of a
    codebook is too far away to be selected: no more proposals are needed than there are centroids.
    """
    padded = halves.shape[1]
    mask = splat(np.int32(-1 << tag_bits))
    start = entry * d * LANES
    norms = _half_norms(residuals, start, d)
    floor = load_ints(best, 0)
    last = load_ints(best, _PASS * LANES)
    at = stage * padded * d
    for j in range(0, padded, GROUP):
        half = stage * padded + j
        s0 = add(norms, broadcast(halves, half))
        s1 = add(norms, broadcast(halves, half + 1))
        s2 = add(norms, broadcast(halves, half + 2))
        s3 = add(norms, broadcast(halves, half + 3))
        position = start
        for _ in range(d):
            x = load(residuals, position)
            s0 = multiply_add(x, broadcast(negated, at), s0)
            s1 = multiply_add(x, broadcast(negated, at + 1), s1)
            s2 = multiply_add(x, broadcast(negated, at + 2), s2)
            s3 = multiply_add(x, broadcast(negated, at + 3), s3)
            at += GROUP
            position += LANES
        tag = (entry << code_bits) | j
        p0 = above(tagged(s0, mask, splat(np.int32(tag))), floor)
        p1 = above(tagged(s1, mask, splat(np.int32(tag + 1))), floor)
        p2 = above(tagged(s2, mask, splat(np.int32(tag + 2))), floor)
        p3 = above(tagged(s3, mask, splat(np.int32(tag + 3))), floor)
        if any_below(lesser(lesser(p0, p1), lesser(p2, p3)), last):
            if any_below(p0, last):
                _insert(p0, best)
            if any_below(p1, last):
                _insert(p1, best)
            if any_below(p2, last):
                _insert(p2, best)
            if any_below(p3, last):
                _insert(p3, best)
            last = load_ints(best, _PASS * LANES)


@compiled()
def beam_encode(points, start, stop, k, negated, halves, width, codes):  # type: ignore[no-untyped-def]
    """Write codes (stages, stop - start) of points (d, n)[:, start:stop], found by a beam of
    `width` partial codes.

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
    best = np.empty((_PASS + 1, LANES), np.int32)
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
            kept = min(width, entries * k)
            best[_PASS] = -_LARGEST
            for slot in range(kept):
                row = slot % _PASS + 1
                if row == 1:
                    best[0] = best[_PASS]
                    best[1:] = _LARGEST
                    for entry in range(entries):
                        _extend(
                            residuals,
                            entry,
                            d,
                            negated,
                            halves,
                            stage,
                            code_bits + entry_bits,
                            code_bits,
                            best,
                        )
                for i in range(LANES):
                    tag = best[row, i] & ((1 << (code_bits + entry_bits)) - 1)
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
            entries = kept
        # Only the best code of the last stage counts.
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
                        codes[stage, begin - start + i] = paths[entry, stage, i]
                    codes[last, begin - start + i] = tile_codes[i]


@compiled()
def subtract_decoded(codes, codebooks, points):  # type: ignore[no-untyped-def]
    """Subtract from points (d, n) what codes (stages, n) and codebooks (stages, k, d) decode to."""
    stages, n = codes.shape
    for stage in range(stages):
        for dim in range(codebooks.shape[2]):
            for i in range(n):
                points[dim, i] -= codebooks[stage, codes[stage, i], dim]


@compiled()
def add_residuals(points, weights, codes, codebooks, start, stop, sums, masses):  # type: ignore[no-untyped-def]
    """Add w·(x - x̂) and w of points (d, n)[:, start:stop] to the entries of their codes.

    x̂ = Σ over stages of codebooks (stages, k, d) by codes (stages, n); points (0, n) stand for
    zeros. sums: (stages, k, d) float64; masses: (stages, k) float64.
    """
    stages, _, d = codebooks.shape
    residual = np.empty(d, np.float64)
    has_points = points.shape[0] > 0
    for i in range(start, stop):
        for dim in range(d):
            residual[dim] = points[dim, i] if has_points else 0.0
        for stage in range(stages):
            code = codes[stage, i]
            for dim in range(d):
                residual[dim] -= codebooks[stage, code, dim]
        w = np.float64(weights[i])
        for stage in range(stages):
            code = codes[stage, i]
            masses[stage, code] += w
            for dim in range(d):
                sums[stage, code, dim] += w * residual[dim]

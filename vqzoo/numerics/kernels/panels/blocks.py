"""Products of panels of columns with a matrix whose blocks of columns are centroids or their sums.

The codes of a row say where in the codebooks its values lie, so a product reads them there: no
value is decoded, and the time is nearly that of a product with the matrix itself. Codes of four
bits of enough rows choose among sums instead, see `nibbles`; sums of centroids are written
out for many panels, see `filled_blocks`.

Codes are flat: each block has a line of m codes for each stage. `packing` is that of
`decode_kernels`. A code beyond the codebook reads its last centroid.
"""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.code_lines import multiply_add, spread_line
from vqzoo.numerics.kernels.lines import LINE
from vqzoo.numerics.kernels.panels.centroids import centroid_at
from vqzoo.numerics.kernels.panels.dense import DEPTH, ROWS, begin, end, places
from vqzoo.numerics.kernels.panels.filled_blocks import MANY_PANELS, multiply_filled_panels
from vqzoo.numerics.kernels.panels.tasks import take_part
from vqzoo.numerics.kernels.products.lanes import (
    load_lanes,
    spread_lanes,
    spread_sum,
)
from vqzoo.numerics.kernels.products.team import on_team_with
from vqzoo.numerics.kernels.vectors import LANES, splat


@compiled()
def multiply_block_panels(operands, rows, panels, n, out, width):  # type: ignore[no-untyped-def]
    """out[i] = the products of row i with the columns of all panels, or add them to it.

    Args:
        operands: (codes, packing, book, blocks, add).
            codes: uint8, uint16 or int32.
            packing: see above.
            book: (codebooks, shared, stages, k, d): codebooks are flat, (blocks or 1, stages, k,
                d); `shared` says that all blocks have the same, and if they have several stages, 16
                floats follow them.
            blocks: (number, column): of blocks, and the column that the first of them begins at.
            add: whether to add.
        rows, panels, n, out, width: see `tasks`.
    """
    codes, packing, book, (number, column), add = operands
    span = (number, column, rows[0], rows[1])
    all_lanes, line = splat(np.float32(0)), spread_line(np.float32(0))
    wide, narrow, to = panels[0], panels[1], panels[0].shape[0] // n
    are_many = len(wide) // (n * LANES) + len(narrow) // (n * LINE) >= MANY_PANELS
    if are_many and book[1] and book[2] > 1 and book[4] <= DEPTH:
        multiply_filled_panels(operands, rows, panels, n, out, width)
        return
    blocks, run, stages, step = span[0], packing[1], book[2], max(1, DEPTH // book[4])
    for slot in range((blocks + run - 1) // run):
        for first in range(slot * run, min((slot + 1) * run, blocks), step):
            last = min(first + step, (slot + 1) * run, blocks)
            for stage in range(0, stages - 1, 2):
                part, more = (first, last, stage), add or first + stage > 0
                call = (codes, packing, book, part, span)
                _meet_two(all_lanes, LANES, *call, wide, n, out, width, 0, more)
                _meet_two(line, LINE, *call, narrow, n, out, width, to, more)
            if stages % 2:
                part, more = (first, last, stages - 1), add or first + stages > 1
                call = (codes, packing, book, part, span)
                _meet(all_lanes, LANES, *call, wide, n, out, width, 0, more)
                _meet(line, LINE, *call, narrow, n, out, width, to, more)


@compiled()
def share_block_panels(team, bounds, operands, panels, n, target):  # type: ignore[no-untyped-def]
    """`multiply_block_panels` for the tasks of a team: see `tasks.take_part`."""
    on_team_with(
        team, take_part, multiply_block_panels, (team, bounds, operands, panels, n, target)
    )


@compiled()
def _meet(none, lanes, codes, packing, book, part, span, panels, n, out, width, to, add):  # type: ignore[no-untyped-def]
    """Add the products of panels of one width with the centroids of one stage.

    Args:
        part: (first, last, stage): blocks whose codes have the same bits of their elements, and
            whose lines of a panel stay in the caches while all rows meet them.
    """
    codebooks, shared, stages, k, d = book
    first, last, stage = part
    look, place, start = _looks(packing, book, first, stage)
    for panel in range(panels.shape[0] // (n * lanes)):
        for row in range(span[2], span[3], ROWS):
            rest = span[3] - 1 - row  # behind the last row, it is multiplied again
            sums = places(row, rest, width, to + panel * lanes)
            a, b, c, e, f, g = begin(none, out, sums, add)
            at, source = place + row, start
            line = (panel * n + span[1] + first * d) * lanes
            for _ in range(first, last):
                i, j, p, q, r, s = _sources(codes, at, rest, source, look)
                for dim in range(d):
                    values = load_lanes(none, panels, line)
                    a = multiply_add(spread_lanes(none, codebooks, i + dim), values, a)
                    b = multiply_add(spread_lanes(none, codebooks, j + dim), values, b)
                    c = multiply_add(spread_lanes(none, codebooks, p + dim), values, c)
                    e = multiply_add(spread_lanes(none, codebooks, q + dim), values, e)
                    f = multiply_add(spread_lanes(none, codebooks, r + dim), values, f)
                    g = multiply_add(spread_lanes(none, codebooks, s + dim), values, g)
                    line += lanes
                at += stages * packing[2]
                source += 0 if shared else stages * k * d
            end(out, sums, (a, b, c, e, f, g))


@compiled()
def _meet_two(none, lanes, codes, packing, book, part, span, panels, n, out, width, to, add):  # type: ignore[no-untyped-def]
    """`_meet` with the sums of the centroids of a stage and the next."""
    codebooks, shared, stages, k, d = book
    first, last, stage = part
    look, place, start = _looks(packing, book, first, stage)
    for panel in range(panels.shape[0] // (n * lanes)):
        for row in range(span[2], span[3], ROWS):
            rest = span[3] - 1 - row
            sums = places(row, rest, width, to + panel * lanes)
            a, b, c, e, f, g = begin(none, out, sums, add)
            at, source = place + row, start
            line = (panel * n + span[1] + first * d) * lanes
            for _ in range(first, last):
                i, j, p, q, r, s = _sources(codes, at, rest, source, look)
                t, u, v, w, x, y = _sources(codes, at + packing[2], rest, source + k * d, look)
                for dim in range(d):
                    values = load_lanes(none, panels, line)
                    a = multiply_add(spread_sum(none, codebooks, i + dim, t + dim), values, a)
                    b = multiply_add(spread_sum(none, codebooks, j + dim, u + dim), values, b)
                    c = multiply_add(spread_sum(none, codebooks, p + dim, v + dim), values, c)
                    e = multiply_add(spread_sum(none, codebooks, q + dim, w + dim), values, e)
                    f = multiply_add(spread_sum(none, codebooks, r + dim, x + dim), values, f)
                    g = multiply_add(spread_sum(none, codebooks, s + dim, y + dim), values, g)
                    line += lanes
                at += stages * packing[2]
                source += 0 if shared else stages * k * d
            end(out, sums, (a, b, c, e, f, g))


@compiled(forceinline=True)
def _looks(packing, book, first, stage):  # type: ignore[no-untyped-def]
    """How codes of a block and those that share their bits are read, where those of its first row
    are, and where its codebook is."""
    bits, run, stride = packing
    _, shared, stages, k, d = book
    slot = first // run
    look = (slot * bits, (1 << bits) - 1, k - 1, d)
    start = ((0 if shared else first * stages) + stage) * k * d
    return look, ((first - slot * run) * stages + stage) * stride, start


@compiled(forceinline=True)
def _sources(codes, at, rest, start, look):  # type: ignore[no-untyped-def]
    """Where in the codebooks the centroids of six rows are."""
    return (
        start + centroid_at(codes, at, look),
        start + centroid_at(codes, at + min(1, rest), look),
        start + centroid_at(codes, at + min(2, rest), look),
        start + centroid_at(codes, at + min(3, rest), look),
        start + centroid_at(codes, at + min(4, rest), look),
        start + centroid_at(codes, at + min(5, rest), look),
    )

"""Products of a few rows of a matrix with panels: columns that lie side by side in registers.

A panel holds `LANES` columns, or 16, line by line. Six rows meet a panel at once: their sums stay
in registers, and each line of the panel is read once for all six.
"""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.code_lines import multiply_add, spread_line
from vqzoo.numerics.kernels.lines import LINE
from vqzoo.numerics.kernels.panels.tasks import take_part
from vqzoo.numerics.kernels.products.lanes import (
    load_lanes,
    spread_lanes,
    store_lanes,
)
from vqzoo.numerics.kernels.products.team import on_team_with
from vqzoo.numerics.kernels.vectors import LANES, splat

ROWS = 6
DEPTH = 512  # lines of a panel that stay in the caches while all rows meet them
PITCH = DEPTH + LINE  # floats from row to row of values that wait for them: no power of two


@compiled()
def multiply_panels(matrix, pitch, rows, columns, panels, n, out, width, add):  # type: ignore[no-untyped-def]
    """out[i] = the products of row i with the columns of all panels, or add them to it.

    Args:
        matrix: flat, (rows, columns[1] - columns[0]), its rows `pitch` apart.
        rows: their number.
        columns: of the whole matrix, (start, stop): the lines of the panels that they meet.
        panels: (wide, narrow), flat: (count, n, `LANES`) and (count, n, 16).
        out: flat; rows are `width` apart, and have a place for each lane.
        add: whether to add.
    """
    all_lanes, line = splat(np.float32(0)), spread_line(np.float32(0))
    wide, narrow, to = panels[0], panels[1], panels[0].shape[0] // n
    for first in range(columns[0], columns[1], DEPTH):
        part, at = (first, min(first + DEPTH, columns[1])), first - columns[0]
        more = add or at > 0
        if len(wide) > 0:  # a call takes time, too
            _meet(all_lanes, LANES, matrix, at, pitch, rows, part, wide, n, out, width, 0, more)
        if len(narrow) > 0:
            _meet(line, LINE, matrix, at, pitch, rows, part, narrow, n, out, width, to, more)


@compiled()
def _multiply(operands, rows, panels, n, out, width):  # type: ignore[no-untyped-def]
    """`multiply_panels` by some rows of a whole matrix, the only operand, flat."""
    matrix, place = operands[0][rows[0] * n :], out[rows[0] * width :]
    multiply_panels(matrix, n, rows[1] - rows[0], (0, n), panels, n, place, width, False)


@compiled()
def share_panels(team, bounds, operands, panels, n, target):  # type: ignore[no-untyped-def]
    """The products of a matrix for the tasks of a team: see `tasks.take_part`."""
    args = (team, bounds, operands, panels, n, target)
    on_team_with(team, take_part, _multiply, args)


@compiled()
def _meet(none, lanes, matrix, source, pitch, rows, part, panels, n, out, width, to, add):  # type: ignore[no-untyped-def]
    """`multiply_panels` of panels of one width, with `part` of the columns."""
    for panel in range(panels.shape[0] // (n * lanes)):
        for row in range(0, rows, ROWS):
            rest = rows - 1 - row  # behind the last row, it is multiplied again
            i, j, k, p, q, r = places(row, rest, pitch, source)
            sums = places(row, rest, width, to + panel * lanes)
            a, b, c, d, e, f = begin(none, out, sums, add)
            at = (panel * n + part[0]) * lanes
            for column in range(part[1] - part[0]):
                line = load_lanes(none, panels, at)
                a = multiply_add(spread_lanes(none, matrix, i + column), line, a)
                b = multiply_add(spread_lanes(none, matrix, j + column), line, b)
                c = multiply_add(spread_lanes(none, matrix, k + column), line, c)
                d = multiply_add(spread_lanes(none, matrix, p + column), line, d)
                e = multiply_add(spread_lanes(none, matrix, q + column), line, e)
                f = multiply_add(spread_lanes(none, matrix, r + column), line, f)
                at += lanes
            end(out, sums, (a, b, c, d, e, f))


@compiled(forceinline=True)
def places(row, rest, width, to):  # type: ignore[no-untyped-def]
    """Where six rows from `row` on begin, `width` apart; those behind `rest` more are the last."""
    first = row * width + to
    return (
        first,
        first + min(1, rest) * width,
        first + min(2, rest) * width,
        first + min(3, rest) * width,
        first + min(4, rest) * width,
        first + min(5, rest) * width,
    )


@compiled(forceinline=True)
def begin(none, out, sums, add):  # type: ignore[no-untyped-def]
    """The sums so far of six rows: those at these places, or none."""
    if not add:
        return none, none, none, none, none, none
    return (
        load_lanes(none, out, sums[0]),
        load_lanes(none, out, sums[1]),
        load_lanes(none, out, sums[2]),
        load_lanes(none, out, sums[3]),
        load_lanes(none, out, sums[4]),
        load_lanes(none, out, sums[5]),
    )


@compiled(forceinline=True)
def end(out, sums, values):  # type: ignore[no-untyped-def]
    """Write the sums of six rows to their places."""
    store_lanes(values[0], out, sums[0])
    store_lanes(values[1], out, sums[1])
    store_lanes(values[2], out, sums[2])
    store_lanes(values[3], out, sums[3])
    store_lanes(values[4], out, sums[4])
    store_lanes(values[5], out, sums[5])

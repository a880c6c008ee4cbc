"""Products of panels of columns with a matrix whose codes walk through a trellis."""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.feedback.trellis import SEGMENT, trellis_levels
from vqzoo.numerics.kernels.panels.dense import multiply_panels
from vqzoo.numerics.kernels.panels.tasks import take_part
from vqzoo.numerics.kernels.products.team import on_team_with

WIDTH = 128  # columns of a segment's levels that are in the caches together


@compiled()
def multiply_walk_panels(operands, rows, panels, n, out, width):  # type: ignore[no-untyped-def]
    """out[i] = the products of the levels of row i with the columns of all panels.

    The levels of a segment's rows and a few columns at a time are in the caches.

    Args:
        operands: (codes, layout, center, factors): the first three as for `trellis_levels`, and
            (n,) float32, that columns are multiplied by, or none.
        rows: whole segments, or the last of them.
        panels, n, out, width: see `tasks`.
    """
    codes, layout, center, factors = operands
    run, levels = layout[1], np.empty(SEGMENT * WIDTH, np.float32)
    for top in range(rows[0], rows[1], SEGMENT):
        count = min(SEGMENT, rows[1] - top)
        part, target = codes[top * run :], out[top * width :]
        for slot in range((n + run - 1) // run):
            end = min((slot + 1) * run, n)
            for first in range(slot * run, end, WIDTH):
                columns = (first, min(first + WIDTH, end))
                pitch = columns[1] - first
                trellis_levels(part, layout, count, columns, center, levels)
                if len(factors) > 0:
                    _scale_columns(levels, count, factors[columns[0] : columns[1]])
                multiply_panels(levels, pitch, count, columns, panels, n, target, width, first > 0)


@compiled()
def share_walk_panels(team, bounds, operands, panels, n, target):  # type: ignore[no-untyped-def]
    """`multiply_walk_panels` for the tasks of a team: see `tasks.take_part`."""
    args = (team, bounds, operands, panels, n, target)
    on_team_with(team, take_part, multiply_walk_panels, args)


@compiled()
def _scale_columns(levels, rows, factors):  # type: ignore[no-untyped-def]
    count = len(factors)
    for row in range(rows):
        for j in range(count):
            levels[np.uint64(row * count + j)] *= factors[np.uint64(j)]

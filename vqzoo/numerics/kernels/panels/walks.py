"""Products of panels of columns with a matrix whose codes walk through a trellis."""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.feedback.trellis import SEGMENT, trellis_levels
from vqzoo.numerics.kernels.panels.dense import finish_rows, multiply_panels
from vqzoo.numerics.kernels.products.team import joins, on_team, take_rows

WIDTH = 128  # columns of a segment's levels that are in the caches together


@compiled()
def multiply_walk_panels(codes, layout, center, factors, rows, panels, n, out, width):  # type: ignore[no-untyped-def]
    """out[i] = the products of the levels of row i with the columns of all panels.

    The levels of a segment's rows and a few columns at a time are in the caches.

    Args:
        codes, layout, center: as for `trellis_levels`.
        factors: (n,) float32, that columns are multiplied by, or none.
        rows: (start, stop): whole segments, or the last of them.
        panels: (wide, narrow), as for `multiply_panels`.
        n, out, width: as for `multiply_panels`.
    """
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
def share_walk_panels(team, bounds, codes, layout, center, factors, panels, n, target):  # type: ignore[no-untyped-def]
    """`multiply_walk_panels` of tasks of rows, shared out among threads.

    Args:
        team: see `products.team`.
        bounds: (m, height): the number of rows, and those of a task.
        target: (out, width, finish): see `finish_rows`.
    """
    on_team(team, _share, (team, bounds, codes, layout, center, factors, panels, n, target))


@compiled()
def _share(team, bounds, codes, layout, center, factors, panels, n, target):  # type: ignore[no-untyped-def]
    if not joins(team):
        return
    out, width, finish = target
    rows = take_rows(team, bounds)
    while rows[0] < rows[1]:
        multiply_walk_panels(codes, layout, center, factors, rows, panels, n, out, width)
        finish_rows(out, width, rows, finish)
        rows = take_rows(team, bounds)


@compiled()
def _scale_columns(levels, rows, factors):  # type: ignore[no-untyped-def]
    count = len(factors)
    for row in range(rows):
        for j in range(count):
            levels[np.uint64(row * count + j)] *= factors[np.uint64(j)]

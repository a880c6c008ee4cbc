"""Products of one input with matrices whose codes do not say where in the matrix they stand: walks
through a trellis, and nonzeros that are gaps apart."""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.code_lines import multiply_add, spread_line, sum_line
from vqzoo.numerics.kernels.feedback.trellis import SEGMENT, trellis_levels
from vqzoo.numerics.kernels.lines import LINE, load_line
from vqzoo.numerics.kernels.panels.sparse import list_nonzeros, without_last_fillers
from vqzoo.numerics.kernels.products.team import joins, on_team, take_rows

_WIDTH = 1024  # columns of a segment's levels: memory serves wide rows of codes faster
_TOGETHER = 4  # rows of a sparse matrix whose nonzeros are listed at a time


@compiled()
def multiply_walk_input(team, m, codes, layout, center, x, factors, out):  # type: ignore[no-untyped-def]
    """out[i] = the product of the levels of row i with x, times its factor.

    Args:
        team: see `products.team`; tasks are segments.
        m: rows.
        codes, layout, center: as for `trellis_levels`.
        x: (n,) float32.
        factors, out: (m,) float32.
    """
    on_team(team, _share_walks, (team, m, codes, layout, center, x, factors, out))


@compiled()
def _share_walks(team, m, codes, layout, center, x, factors, out):  # type: ignore[no-untyped-def]
    if not joins(team):
        return
    run, n, levels = layout[1], len(x), np.empty(SEGMENT * _WIDTH, np.float32)
    rows = take_rows(team, (m, SEGMENT))
    while rows[0] < rows[1]:
        part, sums = codes[rows[0] * run :], out[rows[0] : rows[1]]
        sums[:] = 0
        for slot in range((n + run - 1) // run):
            end = min((slot + 1) * run, n)
            for first in range(slot * run, end, _WIDTH):
                columns = (first, min(first + _WIDTH, end))
                trellis_levels(part, layout, len(sums), columns, center, levels)
                _add_dots(levels, x, columns, sums)
        sums *= factors[rows[0] : rows[1]]
        rows = take_rows(team, (m, SEGMENT))


@compiled()
def _add_dots(levels, x, columns, sums):  # type: ignore[no-untyped-def]
    """Add the products of rows of levels with some columns of x."""
    first, count = columns[0], columns[1] - columns[0]
    whole = count // LINE * LINE
    for row in range(len(sums)):
        at, total = row * count, spread_line(np.float32(0))
        for j in range(0, whole, LINE):
            total = multiply_add(load_line(levels, at + j), load_line(x, first + j), total)
        rest = sum_line(total)
        for j in range(whole, count):
            rest += levels[np.uint64(at + j)] * x[np.uint64(first + j)]
        sums[np.uint64(row)] += rest


@compiled()
def multiply_sparse_input(team, height, gaps, layout, values, begins, x, out):  # type: ignore[no-untyped-def]
    """out[i] = the product of row i with x.

    Args:
        team: see `products.team`.
        height: rows of a task.
        gaps, layout, values, begins: as for `multiply_sparse_panels`.
        x: (n,) float32.
        out: (m,) float32.
    """
    on_team(team, _share_sparse, (team, height, gaps, layout, values, begins, x, out))


@compiled()
def _share_sparse(team, height, gaps, layout, values, begins, x, out):  # type: ignore[no-untyped-def]
    if not joins(team):
        return
    m, n = len(out), len(x)
    layout = without_last_fillers(gaps, layout)
    listed = np.empty(_TOGETHER * n + 1, np.int32), np.empty(_TOGETHER * n + 1, np.float32)
    all_ends = np.empty(_TOGETHER, np.int64)
    rows = take_rows(team, (m, height))
    while rows[0] < rows[1]:
        for row in range(rows[0], rows[1], _TOGETHER):
            places = begins[row : min(row + _TOGETHER, rows[1])].copy()
            ends = all_ends[: len(places)]
            list_nonzeros(gaps, layout, values, row, n, n, places, listed, ends)
            _add_up(listed, ends, x, out[row:])
        rows = take_rows(team, (m, height))


@compiled()
def _add_up(listed, ends, x, sums):  # type: ignore[no-untyped-def]
    """The products of listed rows with x."""
    columns, numbers = listed
    i = 0
    for row in range(len(ends)):
        a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        while i + 3 < ends[row]:  # four sums, so that an addition need not wait for the last
            at = np.uint64(i)
            a += numbers[at] * x[np.uint64(columns[at])]
            b += numbers[at + np.uint64(1)] * x[np.uint64(columns[at + np.uint64(1)])]
            c += numbers[at + np.uint64(2)] * x[np.uint64(columns[at + np.uint64(2)])]
            d += numbers[at + np.uint64(3)] * x[np.uint64(columns[at + np.uint64(3)])]
            i += 4
        while i < ends[row]:
            a += numbers[np.uint64(i)] * x[np.uint64(columns[np.uint64(i)])]
            i += 1
        sums[row] = (a + b) + (c + d)

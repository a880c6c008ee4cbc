"""Products of panels of columns with a sparse matrix whose nonzeros are gaps apart.

A nonzero meets one line of each panel, so lines have to be near: the matrix is multiplied a few
columns at a time, and all rows meet the lines of these while the caches hold them. At the next
columns, a row goes on where it stopped. The nonzeros of some rows are listed before they meet the
panels: whether a gap is a filler takes no branch then, and all panels share the list.

`layout` is (bits, run, filler, symbols): the bits of a gap, 32 if each has an element for itself,
otherwise packed as `decoding.packed` says, with `run` elements; the symbol that skips as many zeros
without a nonzero behind them; and the number of gaps. See `coding.gaps`.
"""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.code_lines import (
    bits_of,
    count_others,
    load_codes,
    multiply_add,
    spread_line,
    total_of,
)
from vqzoo.numerics.kernels.lines import LINE, add_lines, code_at
from vqzoo.numerics.kernels.panels.dense import DEPTH
from vqzoo.numerics.kernels.panels.tasks import take_part
from vqzoo.numerics.kernels.products.lanes import (
    load_lanes,
    spread_lanes,
    store_lanes,
)
from vqzoo.numerics.kernels.products.team import on_team_with
from vqzoo.numerics.kernels.vectors import LANES, splat

_LEAST = 128  # columns at a time, whose lines fit the nearest cache
_GAPS = 96  # of a row at a time, where there are enough columns for them
_TOGETHER = 24  # rows that are listed at a time


@compiled()
def begin_rows(gaps, layout, n, begins):  # type: ignore[no-untyped-def]
    """Where each row begins: (m, 4) int64, the run and the element in it of its first gap, the
    nonzeros before it, and the place in the matrix behind the gaps before it."""
    bits, run, filler, symbols = layout
    row, slot, at, count, end = 0, 0, 0, 0, 0
    while slot * run + at < symbols:
        low, last = slot * bits, min(run, symbols - slot * run)
        while at + LINE <= last:
            line = bits_of(load_codes(gaps, at), low, filler)
            found = count_others(line, filler)
            length = total_of(line) + found
            if end + length > row * n:
                break
            at, count, end = at + LINE, count + found, end + length
        stop = min(at + LINE, last)
        while at < stop:
            gap = code_at(gaps, at) >> low & filler
            while end + gap >= row * n:
                if row == len(begins):
                    return
                begins[row, 0], begins[row, 1] = slot, at
                begins[row, 2], begins[row, 3] = count, end
                row += 1
            is_gap = np.int64(gap != filler)
            at, count, end = at + 1, count + is_gap, end + gap + is_gap
        if at == run:
            slot, at = slot + 1, 0
    for rest in range(row, len(begins)):
        begins[rest, 0], begins[rest, 1], begins[rest, 2], begins[rest, 3] = slot, at, count, end


@compiled()
def multiply_sparse_panels(operands, rows, panels, n, out, width):  # type: ignore[no-untyped-def]
    """out[i] = the products of row i with the columns of all panels.

    Args:
        operands: (gaps, layout, values, begins).
            gaps: uint8.
            layout: see above.
            values: (codes, table, floats): those of the nonzeros are table[codes], or the floats if
                the table is empty.
            begins: where rows begin, see `begin_rows`.
        rows, panels, n, out, width: see `tasks`.
    """
    gaps, layout, values, begins = operands
    wide, narrow = panels
    layout = without_last_fillers(gaps, layout)
    all_lanes, line, to = splat(np.float32(0)), spread_line(np.float32(0)), len(wide) // n
    places, ends = begins[rows[0] : rows[1]].copy(), np.empty(_TOGETHER, np.int64)
    gaps_in_all = max(1, layout[3])
    depth = min(max(_GAPS * len(begins) * n // gaps_in_all, _LEAST), DEPTH)
    room = _TOGETHER * min(depth, n) + 1  # one is written before it is known to be a nonzero
    listed = np.empty(room, np.int32), np.empty(room, np.float32)
    for first in range(0, n, depth):
        stop, add = min(first + depth, n), first > 0
        for row in range(rows[0], rows[1], _TOGETHER):
            some = places[row - rows[0] :][:_TOGETHER]
            ended, target = ends[: len(some)], out[row * width :]
            list_nonzeros(gaps, layout, values, row, n, stop, some, listed, ended)
            if len(wide) > 0:
                _meet(all_lanes, LANES, listed, ended, wide, n, target, width, 0, add)
            if len(narrow) > 0:
                _meet(line, LINE, listed, ended, narrow, n, target, width, to, add)


@compiled()
def share_sparse_panels(team, bounds, operands, panels, n, target):  # type: ignore[no-untyped-def]
    """`multiply_sparse_panels` for the tasks of a team: see `tasks.take_part`."""
    on_team_with(
        team, take_part, multiply_sparse_panels, (team, bounds, operands, panels, n, target)
    )


@compiled()
def without_last_fillers(gaps, layout):  # type: ignore[no-untyped-def]
    """The layout of the gaps up to the last nonzero: `list_nonzeros` reads a value at each gap,
    that of the next nonzero at a filler."""
    bits, run, filler, symbols = layout
    while symbols > 0:
        slot = (symbols - 1) // run
        if code_at(gaps, symbols - 1 - slot * run) >> slot * bits & filler != filler:
            break
        symbols -= 1
    return bits, run, filler, symbols


@compiled()
def list_nonzeros(gaps, layout, values, first, n, stop, places, listed, ends):  # type: ignore[no-untyped-def]
    """List the nonzeros before column `stop` that rows, from `first` on, have not listed so far.

    Args:
        places: of the rows, as in `begin_rows`; they move on.
        listed: (columns, values), which the nonzeros of one row after the other are written to.
        ends: those of the rows in the lists.
    """
    bits, run, filler, symbols = layout
    codes, table, floats = values
    columns, numbers = listed
    k = 0
    for row in range(len(places)):
        begin = (first + row) * n
        slot, at = places[row, 0], places[row, 1]
        count, end = places[row, 2], places[row, 3] - begin
        while slot * run + at < symbols:
            low, last = slot * bits, min(run, symbols - slot * run)
            behind = count - k
            while at < last:
                gap = code_at(gaps, at) >> low & filler
                column = end + gap
                if column >= stop:
                    break
                columns[np.uint64(k)] = column
                if len(table) > 0:
                    numbers[np.uint64(k)] = table[np.uint64(code_at(codes, behind + k))]
                else:
                    numbers[np.uint64(k)] = floats[np.uint64(behind + k)]
                is_gap = np.int64(gap != filler)  # the next nonzero takes a filler's place
                at, k, end = at + 1, k + is_gap, column + is_gap
            count = behind + k
            if at < run:
                break
            slot, at = slot + 1, 0
        places[row, 0], places[row, 1] = slot, at
        places[row, 2], places[row, 3] = count, end + begin
        ends[row] = k


@compiled()
def _meet(none, lanes, listed, ends, panels, n, out, width, to, add):  # type: ignore[no-untyped-def]
    """Write the products of listed rows with panels of one width to `out`, or add them to it."""
    columns, numbers = listed
    for panel in range(len(panels) // (n * lanes)):
        base, i = panel * n * lanes, 0
        for row in range(len(ends)):
            target = to + panel * lanes + row * width
            total, other = none, none  # two sums, so that an addition need not wait for the last
            if add:
                total = load_lanes(none, out, target)
            while i + 1 < ends[row]:
                line = load_lanes(none, panels, base + columns[np.uint64(i)] * lanes)
                total = multiply_add(spread_lanes(none, numbers, i), line, total)
                line = load_lanes(none, panels, base + columns[np.uint64(i + 1)] * lanes)
                other = multiply_add(spread_lanes(none, numbers, i + 1), line, other)
                i += 2
            if i < ends[row]:
                line = load_lanes(none, panels, base + columns[np.uint64(i)] * lanes)
                total = multiply_add(spread_lanes(none, numbers, i), line, total)
                i += 1
            store_lanes(add_lines(total, other), out, target)

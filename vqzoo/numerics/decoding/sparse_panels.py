"""Products of panels of columns with a sparse matrix whose nonzeros are gaps apart.

`layout` is (bits, run, filler, symbols): the bits of a gap, 32 if each has an element for itself,
otherwise packed as `decoding.packed` says, with `run` elements; the symbol that skips as many zeros
without a nonzero behind them; and the number of gaps. See `coding.gaps`.
"""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.code_lines import multiply_add, spread_line
from vqzoo.numerics.kernels.lines import LINE
from vqzoo.numerics.kernels.products.lanes import (
    load_lanes,
    spread_lanes,
    store_lanes,
)
from vqzoo.numerics.kernels.products.panels import finish_rows
from vqzoo.numerics.kernels.products.team import joins, on_team, take_rows
from vqzoo.numerics.kernels.vectors import LANES, splat

_BLOCK = 4096  # gaps that are added up before they are looked at one by one


@compiled()
def begin_rows(gaps, layout, n, height, begins):  # type: ignore[no-untyped-def]
    """Where each part of `height` rows begins: (parts, 3) int64, the gaps and nonzeros before its
    first nonzero, and the place behind the nonzero before that."""
    bits, run, filler, symbols = layout
    mask = np.int64((1 << bits) - 1)
    symbol, count, end, part = 0, 0, 0, 0
    while part < len(begins):
        target = part * height * n
        slot = symbol // run
        first = symbol - slot * run
        stop = min(first + _BLOCK, run, symbols - slot * run)
        if stop <= first:
            begins[part, 0], begins[part, 1], begins[part, 2] = symbol, count, end
            part += 1
            continue
        length, found = 0, 0
        for j in range(first, stop):
            gap = np.int64(gaps[np.uint64(j)]) >> slot * bits & mask
            is_gap = np.int64(gap != filler)
            length += gap + is_gap
            found += is_gap
        if end + length <= target:
            symbol, count, end = symbol + stop - first, count + found, end + length
            continue
        place, seen = end, count
        here, seen_here, place_here = symbol, count, end
        for j in range(first, stop):
            gap = np.int64(gaps[np.uint64(j)]) >> slot * bits & mask
            if gap == filler:
                place += filler
                continue
            if place + gap >= target:
                break
            place, seen = place + gap + 1, seen + 1
            here, seen_here, place_here = symbol + j + 1 - first, seen, place
        begins[part, 0], begins[part, 1], begins[part, 2] = here, seen_here, place_here
        part += 1


@compiled()
def multiply_sparse_panels(gaps, layout, values, begin, rows, panels, n, out, width):  # type: ignore[no-untyped-def]
    """out[i] = the products of row i with the columns of all panels.

    Args:
        gaps: uint8 or int32.
        values: (codes, table, floats): those of the nonzeros are table[codes], or the floats if the
            table is empty.
        begin: where the first row begins, see `begin_rows`.
        rows: (start, stop).
        panels: (wide, narrow), as for `multiply_panels`.
        n, out, width: as for `multiply_panels`.
    """
    wide, narrow = panels
    if len(wide) > 0:
        lanes, none = LANES, splat(np.float32(0))
        _meet(none, lanes, gaps, layout, values, begin, rows, wide, n, out, width, 0)
    if len(narrow) > 0:
        line, to = spread_line(np.float32(0)), len(wide) // n
        _meet(line, LINE, gaps, layout, values, begin, rows, narrow, n, out, width, to)


@compiled()
def share_sparse_panels(team, bounds, gaps, layout, values, begins, panels, n, target):  # type: ignore[no-untyped-def]
    """`multiply_sparse_panels` of tasks of rows, shared out among threads.

    Args:
        team: see `products.team`.
        bounds: (m, height): the number of rows, and those of a task.
        target: (out, width, finish): see `finish_rows`.
    """
    on_team(team, _share, (team, bounds, gaps, layout, values, begins, panels, n, target))


@compiled()
def _share(team, bounds, gaps, layout, values, begins, panels, n, target):  # type: ignore[no-untyped-def]
    if not joins(team):
        return
    out, width, finish = target
    rows = take_rows(team, bounds)
    while rows[0] < rows[1]:
        begin = begins[rows[0] // bounds[1]]
        multiply_sparse_panels(gaps, layout, values, begin, rows, panels, n, out, width)
        finish_rows(out, width, rows, finish)
        rows = take_rows(team, bounds)


@compiled()
def _meet(none, lanes, gaps, layout, values, begin, rows, panels, n, out, width, to):  # type: ignore[no-untyped-def]
    """`multiply_sparse_panels` of panels of one width."""
    bits, run, filler, symbols = layout
    codes, table, floats = values
    mask = np.int64((1 << bits) - 1)
    for panel in range(len(panels) // (n * lanes)):
        base, target = panel * n * lanes, to + panel * lanes
        symbol, count, end = begin[0], begin[1], begin[2]
        slot = symbol // run
        at, low = symbol - slot * run, slot * bits
        row, behind, total = rows[0], (rows[0] + 1) * n, none
        while symbol < symbols and row < rows[1]:
            gap = np.int64(gaps[np.uint64(at)]) >> low & mask
            symbol, at = symbol + 1, at + 1
            if at == run:
                at, low = 0, low + bits
            if gap == filler:
                end += filler
                continue
            place = end + gap
            end = place + 1
            while place >= behind and row < rows[1]:
                store_lanes(total, out, target + row * width)
                row, behind, total = row + 1, behind + n, none
            if row == rows[1]:
                break
            line = load_lanes(none, panels, base + (place - behind + n) * lanes)
            if len(table) > 0:
                value = spread_lanes(none, table, np.int64(codes[np.uint64(count)]))
            else:
                value = spread_lanes(none, floats, count)
            total = multiply_add(value, line, total)
            count += 1
        while row < rows[1]:
            store_lanes(total, out, target + row * width)
            row, total = row + 1, none

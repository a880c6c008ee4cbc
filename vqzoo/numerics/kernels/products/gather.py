"""Gathers columns into panels."""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.lines import LINE, load_line, store_line
from vqzoo.numerics.kernels.products.team import joins, on_team, take_rows
from vqzoo.numerics.kernels.vectors import LANES


@compiled()
def gather_panels(team, height, source, jump, table, width, panels):  # type: ignore[no-untyped-def]
    """Fill panels with the values at places of a table, and those `jump` further on, and so on.

    Args:
        team: see `team`.
        height: lines of all panels, a task.
        source: float32, flat.
        jump: positions in it from one group of lines to the next.
        table: int64, flat, (taps, width): places of the first lines; 0 is written for negative
            ones.
        width: lanes of all panels.
        panels: (wide, narrow), flat: (count, n, `LANES`) and (count, n, 16) float32, n being a
            multiple of taps.
    """
    on_team(team, _share, (team, height, source, jump, table, width, panels))


@compiled()
def _share(team, height, source, jump, table, width, panels):  # type: ignore[no-untyped-def]
    if not joins(team):
        return
    wide, narrow = panels
    n = (len(wide) + len(narrow)) // width
    layout = (jump, table, width)
    start, stop = take_rows(team, (n, height))
    while start < stop:
        if len(wide) > 0:
            _gather(source, layout, 0, LANES, n, start, stop, wide)
        if len(narrow) > 0:
            _gather(source, layout, len(wide) // n, LINE, n, start, stop, narrow)
        start, stop = take_rows(team, (n, height))


@compiled()
def _gather(source, layout, column, lanes, n, start, stop, out):  # type: ignore[no-untyped-def]
    """Lines `start` to `stop` - 1 of the panels of one width, whose first column is `column`."""
    jump, table, width = layout
    taps = len(table) // width
    in_a_row = np.empty(taps, np.bool_)
    for panel in range(len(out) // (n * lanes)):
        first = column + panel * lanes
        _find_rows(table, width, first, lanes, in_a_row)
        tap, base, to = start % taps, start // taps * jump, (panel * n + start) * lanes
        for _ in range(start, stop):
            at = tap * width + first
            if in_a_row[tap]:  # vectors are copied sooner than floats
                place = base + table[at]
                for part in range(0, lanes, LINE):
                    store_line(load_line(source, place + part), out, to + part)
            else:
                for lane in range(lanes):
                    place = table[np.uint64(at + lane)]
                    value = source[np.uint64(base + max(place, 0))]
                    out[np.uint64(to + lane)] = value if place >= 0 else np.float32(0)
            to += lanes
            tap += 1
            if tap == taps:
                tap, base = 0, base + jump


@compiled()
def _find_rows(table, width, first, lanes, in_a_row):  # type: ignore[no-untyped-def]
    """Write for each tap whether the places of a panel's lanes follow one another."""
    for tap in range(len(in_a_row)):
        at = tap * width + first
        follow = table[at] >= 0
        for lane in range(lanes):
            follow &= table[at + lane] == table[at] + lane
        in_a_row[tap] = follow

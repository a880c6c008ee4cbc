"""Gathers columns into panels."""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.code_lines import spread_line
from vqzoo.numerics.kernels.lines import LINE, load_line, store_line
from vqzoo.numerics.kernels.products.team import joins, on_team, take_rows
from vqzoo.numerics.kernels.vectors import LANES

MIXED, IN_A_ROW, SCATTERED, OUTSIDE = range(4)
"""Kinds of 16 places: some of them outside of the source, one behind the other, none outside, all
outside."""


@compiled()
def gather_panels(team, height, source, jump, places, kinds, panels):  # type: ignore[no-untyped-def]
    """Fill panels with the values at some places, and those `jump` further on, and so on.

    Args:
        team: see `team`.
        height: lines of all panels, a task.
        source: float32, flat.
        jump: positions in it from one group of lines to the next.
        places: int64, (taps, width): of the first group of lines, one for each lane of all panels;
            0 is written for negative ones.
        kinds: uint8, (taps, width / 16).
        panels: (wide, narrow), flat: (count, n, `LANES`) and (count, n, 16) float32, n being a
            multiple of taps.
    """
    on_team(team, _share, (team, height, source, jump, places, kinds, panels))


@compiled()
def _share(team, height, source, jump, places, kinds, panels):  # type: ignore[no-untyped-def]
    if not joins(team):
        return
    wide, narrow = panels
    n = (len(wide) + len(narrow)) // places.shape[1]
    start, stop = take_rows(team, (n, height))
    while start < stop:
        span = (n, start, stop)
        _gather(source, jump, places, kinds, 0, LANES, span, wide)
        _gather(source, jump, places, kinds, len(wide) // n, LINE, span, narrow)
        start, stop = take_rows(team, (n, height))


@compiled()
def _gather(source, jump, places, kinds, column, lanes, span, out):  # type: ignore[no-untyped-def]
    """Lines of the panels of one width, whose first column is `column`.

    Args:
        span: (n, start, stop).
    """
    n, start, stop = span
    none, width, per_tap = spread_line(np.float32(0)), places.shape[1], kinds.shape[1]
    flat, flat_kinds = places.reshape(-1), kinds.reshape(-1)
    for panel in range(len(out) // (n * lanes)):
        tap, base, to = (
            start % len(places),
            start // len(places) * jump,
            (panel * n + start) * lanes,
        )
        for _ in range(start, stop):
            at, kind_at = tap * width + column + panel * lanes, tap * per_tap
            kind_at += (column + panel * lanes) // LINE
            for part in range(lanes // LINE):
                kind = flat_kinds[np.uint64(kind_at + part)]
                if kind == IN_A_ROW:  # vectors are copied sooner than floats
                    line = load_line(source, base + flat[np.uint64(at)])
                    store_line(line, out, to)
                elif kind == OUTSIDE:
                    store_line(none, out, to)
                elif kind == SCATTERED:
                    for lane in range(LINE):
                        place = np.uint64(base + flat[np.uint64(at + lane)])
                        out[np.uint64(to + lane)] = source[place]
                else:
                    for lane in range(LINE):
                        place = flat[np.uint64(at + lane)]
                        value = source[np.uint64(base + max(place, 0))]
                        out[np.uint64(to + lane)] = value if place >= 0 else np.float32(0)
                at, to = at + LINE, to + LINE
            tap += 1
            if tap == len(places):
                tap, base = 0, base + jump

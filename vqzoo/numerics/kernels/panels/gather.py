"""Gathers columns into panels."""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.code_lines import spread_line
from vqzoo.numerics.kernels.lines import LINE, store_line
from vqzoo.numerics.kernels.products.lanes import load_some
from vqzoo.numerics.kernels.products.team import joins, on_team, take_rows
from vqzoo.numerics.kernels.vectors import LANES

MOST_RUNS = 6
"""Lines of more runs are gathered float by float."""


@compiled()
def gather_panels(team, height, source, jump, places, runs, panels):  # type: ignore[no-untyped-def]
    """Fill panels with the values at some places, and those `jump` further on, and so on.

    Args:
        team: see `team`.
        height: lines of all panels, a task.
        source: float32, flat.
        jump: positions in it from one group of lines to the next.
        places: int64, (taps, width): of the first group of lines, one for each lane of all panels;
            0 is written for negative ones.
        runs: (firsts, offsets, masks): in what runs of adjacent floats lie the places of 16 lanes,
            (taps · width / 16 + 1,), the number of each line's first run; where a run would have
            the line's first lane; and its lanes, as bits. All are int64.
        panels: (wide, narrow), flat: (count, n, `LANES`) and (count, n, 16) float32, n being a
            multiple of taps.
    """
    on_team(team, _share, (team, height, source, jump, places, runs, panels))


@compiled()
def _share(team, height, source, jump, places, runs, panels):  # type: ignore[no-untyped-def]
    if not joins(team):
        return
    wide, narrow = panels
    n = (len(wide) + len(narrow)) // places.shape[1]
    start, stop = take_rows(team, (n, height))
    while start < stop:
        span = (n, start, stop)
        _gather(source, jump, places, runs, 0, LANES, span, wide)
        _gather(source, jump, places, runs, len(wide) // n, LINE, span, narrow)
        start, stop = take_rows(team, (n, height))


@compiled()
def _gather(source, jump, places, runs, column, lanes, span, out):  # type: ignore[no-untyped-def]
    """Lines of the panels of one width, whose first column is `column`.

    Args:
        span: (n, start, stop).
    """
    n, start, stop = span
    none, width, flat = spread_line(np.float32(0)), places.shape[1], places.reshape(-1)
    firsts, offsets, masks = runs
    for panel in range(len(out) // (n * lanes)):
        tap, base, to = (
            start % len(places),
            start // len(places) * jump,
            (panel * n + start) * lanes,
        )
        for _ in range(start, stop):
            at = tap * width + column + panel * lanes
            for first in range(at, at + lanes, LINE):
                line = np.uint64(first // LINE)
                run, last = firsts[line], firsts[line + np.uint64(1)]
                if last - run <= MOST_RUNS:
                    values = none
                    for each in range(run, last):
                        offset, mask = offsets[np.uint64(each)], masks[np.uint64(each)]
                        values = load_some(values, source, base + offset, mask)
                    store_line(values, out, to)
                else:
                    for lane in range(LINE):
                        place = flat[np.uint64(first + lane)]
                        value = source[np.uint64(base + max(place, 0))]
                        out[np.uint64(to + lane)] = value if place >= 0 else np.float32(0)
                to += LINE
            tap += 1
            if tap == len(places):
                tap, base = 0, base + jump

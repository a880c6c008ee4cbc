"""Mixes the lines of panels: block by block, a small matrix times the lines of the block."""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.code_lines import multiply_add, spread_line
from vqzoo.numerics.kernels.lines import LINE
from vqzoo.numerics.kernels.products.lanes import load_lanes, spread_lanes, store_lanes
from vqzoo.numerics.kernels.products.team import joins, on_team, take_rows
from vqzoo.numerics.kernels.vectors import LANES, splat


@compiled()
def mix_panels(team, height, basis, factors, n, panels, mixed):  # type: ignore[no-untyped-def]
    """Write to the lines of a block the basis times its lines, each times a factor.

    Args:
        team: see `team`.
        height: blocks, a task.
        basis: float32, (taps, taps).
        factors: (n,) float32.
        n: lines, a multiple of taps.
        panels: (wide, narrow), as for `multiply_panels`.
        mixed: the same, written.
    """
    on_team(team, _share, (team, height, basis, factors, n, panels, mixed))


@compiled()
def _share(team, height, basis, factors, n, panels, mixed):  # type: ignore[no-untyped-def]
    if not joins(team):
        return
    all_lanes, line = splat(np.float32(0)), spread_line(np.float32(0))
    bounds, flat = (n // len(basis), height), basis.reshape(-1)
    blocks = take_rows(team, bounds)
    while blocks[0] < blocks[1]:
        lines = (blocks[0] * len(basis), blocks[1] * len(basis), n)
        _mix(all_lanes, LANES, flat, len(basis), factors, lines, panels[0], mixed[0])
        _mix(line, LINE, flat, len(basis), factors, lines, panels[1], mixed[1])
        blocks = take_rows(team, bounds)


@compiled()
def _mix(none, lanes, basis, taps, factors, lines, panels, mixed):  # type: ignore[no-untyped-def]
    """Lines `lines[0]` to `lines[1]` - 1, of `lines[2]`, of the panels of one width."""
    for panel in range(len(panels) // (lines[2] * lanes)):
        for line in range(lines[0], lines[1]):
            tap, at = line % taps, panel * lines[2] + line
            total = none
            for other in range(taps):
                values = load_lanes(none, panels, (at - tap + other) * lanes)
                total = multiply_add(spread_lanes(none, basis, tap * taps + other), values, total)
            total = multiply_add(spread_lanes(none, factors, line), total, none)
            store_lanes(total, mixed, at * lanes)

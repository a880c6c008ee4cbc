"""Products of panels of columns with a matrix whose codes walk through a trellis."""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.feedback.trellis import SEGMENT, trellis_levels
from vqzoo.numerics.kernels.products.panels import DEPTH, multiply_panels


@compiled()
def multiply_walk_panels(codes, layout, center, rows, panels, n, out, width):  # type: ignore[no-untyped-def]
    """out[i] = the products of the levels of row i with the columns of all panels.

    The levels of a segment's rows and a few columns at a time are in the caches.

    Args:
        codes, layout, center: as for `trellis_levels`.
        rows: (start, stop): whole segments, or the last of them.
        panels: (wide, narrow), as for `multiply_panels`.
        n, out, width: as for `multiply_panels`.
    """
    run, levels = layout[1], np.empty(SEGMENT * DEPTH, np.float32)
    for top in range(rows[0], rows[1], SEGMENT):
        count = min(SEGMENT, rows[1] - top)
        part, target = codes[top * run :], out[top * width :]
        for slot in range((n + run - 1) // run):
            end = min((slot + 1) * run, n)
            for first in range(slot * run, end, DEPTH):
                columns = (first, min(first + DEPTH, end))
                pitch = columns[1] - first
                trellis_levels(part, layout, count, columns, center, levels)
                multiply_panels(levels, pitch, count, columns, panels, n, target, width, first > 0)

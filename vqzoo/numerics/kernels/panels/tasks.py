"""Tasks of products with panels: rows of a matrix, which the threads of a team take in turn.

All kernels of products have one form, `multiply(operands, rows, panels, n, out, width)`:

* operands: a tuple, which each kernel describes;
* rows: (start, stop), of the whole matrix;
* panels: (wide, narrow), flat: (count, n, `LANES`) and (count, n, 16) float32;
* out: flat; rows are `width` apart, and have a place for each lane.
"""

import numpy as np
from numba import njit

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.products.team import joins, take_rows


@njit(nogil=True)  # not stored: each kernel that shares its tasks contains it
def take_part(multiply, team, bounds, operands, panels, n, target):  # type: ignore[no-untyped-def]
    """Multiply by the rows of tasks until none is left, and write the products where they belong.

    Args:
        multiply: see above, as for `operands`, `panels` and `n`.
        team: see `products.team`.
        bounds: (m, height): the number of rows, and those of a task.
        target: (out, width, finish): see `_finish`.
    """
    if not joins(team):
        return
    out, width, finish = target
    rows = take_rows(team, bounds)
    while rows[0] < rows[1]:
        multiply(operands, rows, panels, n, out, width)
        _finish(out, width, rows, finish)
        rows = take_rows(team, bounds)


@compiled()
def _finish(out, width, rows, finish):  # type: ignore[no-untyped-def]
    """Write the sums of some rows to where they belong, times the rows' scales.

    Args:
        finish: (result, count, scales): the result is flat, (m, count) float32, or empty, if more
            is to be added to the sums; scales are (m,) or (1,), of all rows.
    """
    result, count, scales = finish
    if len(result) == 0:
        return
    for row in range(rows[0], rows[1]):
        scale, source, to = scales[min(row, len(scales) - 1)], row * width, row * count
        for column in range(count):
            result[np.uint64(to + column)] = out[np.uint64(source + column)] * scale

"""Inner loop of error feedback onto shared levels, on the CPU."""

import numpy as np

from vqzoo.numerics.compiled import compiled


@compiled()
def feed_back_some(  # type: ignore[no-untyped-def]
    rows, factors, groups, levels, limits, steps, step_of, kept, codes, errors
):
    """Quantize a few columns of some rows one after another; errors reach only these columns.

    Args:
        rows: (r, w) float32, the columns in the order of elimination; changed.
        factors: (groups, w, w) float32, U of these columns.
        groups: (r,) int32, the group of each row.
        levels: (k,) float32, ascending.
        limits: (k - 1,) float32, half-way between the levels.
        steps: (r, s) float32, >= 0, by which levels are multiplied.
        step_of: (w,) int32, the step of each column.
        kept: (r, w) bool, where values may differ from 0; (r, 0) for everywhere.
        codes: (r, w) int32, written: the nearest levels.
        errors: (r, w) float32, written: the errors divided by U_jj.
    """
    for i in range(rows.shape[0]):
        row, factor = rows[i], factors[groups[i]]
        for j in range(rows.shape[1]):
            step = steps[i, step_of[j]]
            value = np.float32(0)
            if kept.shape[1] == 0 or kept[i, j]:
                x = row[j] / step if step > 0 else np.float32(0)
                code = np.searchsorted(limits, x)
                codes[i, j] = code
                value = levels[code] * step
            error = (row[j] - value) / factor[j, j]
            errors[i, j] = error
            for k in range(j + 1, rows.shape[1]):
                row[k] -= error * factor[j, k]

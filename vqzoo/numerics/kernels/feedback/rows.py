"""Inner loops of error feedback on the CPU: rows on a scalar grid, columns one after another."""

import numpy as np

from vqzoo.numerics.compiled import compiled

BLOCK = 32  # columns whose errors reach the columns behind the block together
_TILE = 512  # columns that are updated at a time: they stay in the L1 cache


@compiled()
def _choose(x, cost, bits, reach):  # type: ignore[no-untyped-def]
    """The code of x in units of the step: floor, ceiling or 0, whichever has the least
    cost·(x - code)² + bits, codes being at most `reach` in magnitude."""
    low = max(-reach, min(int(np.floor(x)), reach - 1))
    best, least = 0, cost * x * x + bits[reach]
    for code in (low, low + 1):
        total = cost * (x - code) * (x - code) + bits[code + reach]
        if total < least:
            best, least = code, total
    return best


@compiled()
def feed_back_rows(  # type: ignore[no-untyped-def]
    rows, factors, groups, row_steps, column_steps, row_costs, column_costs, stretch, bits,
    row_classes, column_classes, codes,
):  # fmt: skip
    """Quantize rows, changing them; all that concerns columns is in the order of elimination.

    Args:
        rows: (r, n) float32.
        factors: U of all groups, (groups, n, n) float32.
        groups: (r,) int32, the group of each row.
        row_steps, column_steps: (r,), (n,) float32; a step is their product.
        row_costs, column_costs: (r,), (groups, n) float32; bits that a squared step of error is
            worth are their product.
        bits: (row classes, column classes, 1, 2·reach + 1) float32: the price of each code.
        stretch: (groups, n) float32: what weights are multiplied by before codes are chosen.
        row_classes, column_classes: (r,), (n,) int32.
        codes: (r, n) int32, written: -reach to reach.
    """
    r, n = rows.shape
    reach = bits.shape[3] // 2
    errors = np.empty((r, BLOCK), np.float32)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        for i in range(r):
            row, factor = rows[i], factors[groups[i]]
            for j in range(start, stop):
                step = row_steps[i] * column_steps[j]
                table = bits[row_classes[i], column_classes[j], 0]
                cost = row_costs[i] * column_costs[groups[i], j]
                code = _choose(stretch[groups[i], j] * row[j] / step, cost, table, reach)
                codes[i, j] = code
                error = (row[j] - step * code) / factor[j, j]
                errors[i, j - start] = error
                for k in range(j + 1, stop):
                    row[k] -= error * factor[j, k]
        push(rows, factors, groups, errors, start, stop)


@compiled()
def push(rows, factors, groups, errors, start, stop):  # type: ignore[no-untyped-def]
    """Take the errors of columns `start` to `stop`, divided by U_jj, from the columns behind."""
    n = rows.shape[1]
    for left in range(stop, n, _TILE):
        right = min(left + _TILE, n)
        for i in range(rows.shape[0]):
            row, factor = rows[i], factors[groups[i]]
            j = start
            while j + 4 <= stop:
                e0, e1 = errors[i, j - start], errors[i, j - start + 1]
                e2, e3 = errors[i, j - start + 2], errors[i, j - start + 3]
                for k in range(left, right):
                    near = e0 * factor[j, k] + e1 * factor[j + 1, k]
                    row[k] -= near + (e2 * factor[j + 2, k] + e3 * factor[j + 3, k])
                j += 4
            while j < stop:
                error = errors[i, j - start]
                for k in range(left, right):
                    row[k] -= error * factor[j, k]
                j += 1

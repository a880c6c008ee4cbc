"""Inner loops of error feedback on the CPU: rows on a scalar grid, columns one after another."""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.vectors import LANES, add, broadcast, load, multiply, store, subtract

BLOCK = 32  # columns whose errors reach the columns behind the block together


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
    """Take the errors of columns `start` to `stop`, divided by U_jj, from the columns behind.

    Sums have one order, so that codes do not depend on the width of the processor's vectors.
    """
    r, n = rows.shape
    width = stop - start
    block = np.empty((width, LANES), np.float32)
    whole = stop + (n - stop) // LANES * LANES
    for left in range(stop, whole, LANES):
        group = -1
        for i in range(r):
            if groups[i] != group:
                group = groups[i]
                block[:] = factors[group, start:stop, left : left + LANES]
            _push_vector(rows, i * n + left, block, errors, i * errors.shape[1], width)
    for i in range(r):
        _push_rest(rows[i, whole:], factors[groups[i], start:stop, whole:], errors[i])


@compiled()
def _push_vector(rows, at, block, errors, first, width):  # type: ignore[no-untyped-def]
    """`push` for `LANES` columns of a row from flat position `at`; its errors begin at `first`."""
    values = load(rows, at)
    j = 0
    while j + 4 <= width:
        near = multiply(broadcast(errors, first + j), load(block, j * LANES))
        second = multiply(broadcast(errors, first + j + 1), load(block, (j + 1) * LANES))
        far = multiply(broadcast(errors, first + j + 2), load(block, (j + 2) * LANES))
        last = multiply(broadcast(errors, first + j + 3), load(block, (j + 3) * LANES))
        values = subtract(values, add(add(near, second), add(far, last)))
        j += 4
    while j < width:
        change = multiply(broadcast(errors, first + j), load(block, j * LANES))
        values = subtract(values, change)
        j += 1
    store(rows, at, values)


@compiled()
def _push_rest(row, factor, errors):  # type: ignore[no-untyped-def]
    """`push` for the columns of a row that fill no vector."""
    width = len(factor)
    j = 0
    while j + 4 <= width:
        for k in range(len(row)):
            near = errors[j] * factor[j, k] + errors[j + 1] * factor[j + 1, k]
            far = errors[j + 2] * factor[j + 2, k] + errors[j + 3] * factor[j + 3, k]
            row[k] -= near + far
        j += 4
    while j < width:
        for k in range(len(row)):
            row[k] -= errors[j] * factor[j, k]
        j += 1

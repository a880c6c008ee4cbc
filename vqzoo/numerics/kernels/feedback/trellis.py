"""Trellis-coded quantization of columns with error feedback, and its decoder.

Two quantizers share a grid: code c stands for the even level 2c in one, for the odd level
2c - sgn(c) in the other. A machine of eight states walks down each column; its state says which
quantizer a code belongs to, and the code's parity where it goes next (Schwarz et al. 2021, "Hybrid
video coding with trellis-coded quantization"; Haase et al. 2020 for networks; the states are those
of ISO/IEC 15938-17). So the levels in reach lie twice as densely as codes do, at almost no cost in
bits: at high rate the error is about 0.9 dB less. Walks begin in state 0 every `SEGMENT` rows.
"""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.feedback.rows import BLOCK, push

SEGMENT = 128
# NEXT[state][parity of the code]; odd states use the odd levels.
NEXT = np.array([[0, 2], [7, 5], [1, 3], [6, 4], [2, 0], [5, 7], [3, 1], [4, 6]], np.int32)
_STATES = 8
# A walk comes into each state from _BEFORE[state] by a code of parity _PARITY[state], or from the
# state 4 beyond by the other parity.
_BEFORE = np.array([0, 2, 0, 2, 3, 1, 3, 1], np.int32)
_PARITY = np.array([0, 0, 1, 1, 1, 1, 0, 0], np.int32)
_FAR = np.float32(1e30)


@compiled()
def _level(code, odd):  # type: ignore[no-untyped-def]
    """The level of a code in units of the step."""
    if code > 0:
        return 2 * code - odd
    return 2 * code + odd if code < 0 else 0


@compiled()
def _offer(x, cost, prices, reach, codes, costs):  # type: ignore[no-untyped-def]
    """The best code of x for each quantizer and parity, and what it costs.

    Considered are the two codes on either side of x, in each quantizer, and 0.
    """
    for odd in range(2):
        bits = prices[odd]
        codes[odd, 0] = 0
        costs[odd, 0] = cost * x * x + bits[reach]
        costs[odd, 1] = _FAR
        magnitude = min(int((abs(x) + odd) / 2), max(0, reach - 2))
        for near in range(magnitude - 1, magnitude + 3):
            if near > 0:
                code = min(near, reach)
                if x < 0:
                    code = -code
                error = x - _level(code, odd)
                total = cost * error * error + bits[code + reach]
                parity = code & 1
                if total < costs[odd, parity]:
                    costs[odd, parity] = total
                    codes[odd, parity] = code


@compiled()
def _cheaper(one, other, beyond, state):  # type: ignore[no-untyped-def]
    """The lesser of two costs; notes whether it is the other."""
    beyond[state] = other < one
    return other if other < one else one


@compiled()
def _advance(walks, costs, beyond):  # type: ignore[no-untyped-def]
    """Costs of the cheapest walks into all states, above the least of them.

    Written out for the states of `NEXT`, so that costs stay in registers.

    Args:
        walks: eight float32: such costs before this code.
        costs: (2, 2) float32: of a code for each quantizer and parity.
        beyond: (8,) bool, written: which of the two walks into each state is the cheaper one.
    """
    s0, s1, s2, s3, s4, s5, s6, s7 = walks
    even0, even1, odd0, odd1 = costs[0, 0], costs[0, 1], costs[1, 0], costs[1, 1]
    t0 = _cheaper(s0 + even0, s4 + even1, beyond, 0)
    t1 = _cheaper(s2 + even0, s6 + even1, beyond, 1)
    t2 = _cheaper(s0 + even1, s4 + even0, beyond, 2)
    t3 = _cheaper(s2 + even1, s6 + even0, beyond, 3)
    t4 = _cheaper(s3 + odd1, s7 + odd0, beyond, 4)
    t5 = _cheaper(s1 + odd1, s5 + odd0, beyond, 5)
    t6 = _cheaper(s3 + odd0, s7 + odd1, beyond, 6)
    t7 = _cheaper(s1 + odd0, s5 + odd1, beyond, 7)
    least = min(min(min(t0, t1), min(t2, t3)), min(min(t4, t5), min(t6, t7)))
    return (
        min(t0 - least, _FAR), min(t1 - least, _FAR), min(t2 - least, _FAR), min(t3 - least, _FAR),
        min(t4 - least, _FAR), min(t5 - least, _FAR), min(t6 - least, _FAR), min(t7 - least, _FAR),
    )  # fmt: skip


@compiled()
def _cheapest(walks):  # type: ignore[no-untyped-def]
    state = 0
    for other in range(_STATES):
        if walks[other] < walks[state]:
            state = other
    return state


@compiled()
def feed_back_trellis(  # type: ignore[no-untyped-def]
    rows, factors, groups, row_steps, column_steps, row_costs, column_costs, stretch, bits,
    row_classes, column_classes, codes,
):  # fmt: skip
    """Quantize at most `SEGMENT` rows, changing them; see `feed_back_rows`.

    Args:
        bits: (row classes, column classes, 2, 2·reach + 1), for even and odd levels.
    """
    r, n = rows.shape
    reach = bits.shape[3] // 2
    # Transposed: what happens to a column happens to all of its rows at once.
    values, errors = np.empty((BLOCK, r), np.float32), np.empty((BLOCK, r), np.float32)
    best, costs = np.zeros((r, 2, 2), np.int32), np.empty((2, 2), np.float32)
    beyond = np.empty((r, _STATES), np.bool_)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        for i in range(r):
            for j in range(start, stop):
                values[j - start, i] = rows[i, j]
        for j in range(start, stop):
            column = values[j - start]
            _catch_up(column, errors, factors, groups, start, j)
            walks = (np.float32(0), _FAR, _FAR, _FAR, _FAR, _FAR, _FAR, _FAR)
            for i in range(r):
                x = stretch[groups[i], j] * column[i] / (row_steps[i] * column_steps[j])
                table = bits[row_classes[i], column_classes[j]]
                _offer(x, row_costs[i] * column_costs[groups[i], j], table, reach, best[i], costs)
                walks = _advance(walks, costs, beyond[i])
            state = _cheapest(walks)
            for i in range(r - 1, -1, -1):
                other = int(beyond[i, state])
                parity = _PARITY[state] ^ other
                state = _BEFORE[state] + 4 * other
                code = best[i, state & 1, parity]
                codes[i, j] = code
                level = _level(code, state & 1) * (row_steps[i] * column_steps[j])
                errors[j - start, i] = (column[i] - level) / factors[groups[i], j, j]
        push(rows, factors, groups, errors[: stop - start].T.copy(), start, stop)


@compiled()
def _catch_up(column, errors, factors, groups, start, j):  # type: ignore[no-untyped-def]
    """Take the errors of the columns from `start` on from column j."""
    for k in range(start, j):
        before = errors[k - start]
        if groups[0] == groups[-1]:
            factor = factors[groups[0], k, j]
            for i in range(len(column)):
                column[i] -= before[i] * factor
        else:
            for i in range(len(column)):
                column[i] -= before[i] * factors[groups[i], k, j]


@compiled(forceinline=True)
def _after(state, code):  # type: ignore[no-untyped-def]
    """NEXT[state, code & 1] in operations that compilers make vectors of: the machine is linear
    over GF(2)."""
    moved = (state >> np.int32(1)) ^ (-(state & np.int32(1)) & np.int32(7))
    return moved ^ ((code & np.int32(1)) << np.int32(1))


@compiled()
def trellis_levels(codes, layout, rows, columns, center, levels):  # type: ignore[no-untyped-def]
    """The levels of some columns of a segment's codes, the code `center` being 0.

    Args:
        codes: flat, from the segment's first row on; rows take `run` elements.
        layout: (bits, run): 32 if each code has an element for itself, otherwise packed along rows,
            see `decoding.packed`.
        rows: of the segment.
        columns: (start, stop), of one run.
        center: int32.
        levels: float32, flat: (rows, stop - start).
    """
    bits, run = layout
    start, count = columns[0], columns[1] - columns[0]
    slot, mask = start // run, np.int32((1 << bits) - 1)
    low = np.int32(slot * bits)
    states = np.zeros(count, np.int32)
    for row in range(rows):
        source, to = row * run + start - slot * run, row * count
        for j in range(count):
            column = np.uint64(j)
            held = np.int32(codes[np.uint64(source + j)])
            code = np.int32(np.int32(np.int32(held >> low) & mask) - center)
            sign = np.int32(code > 0) - np.int32(code < 0)
            level = np.int32(2 * code) - np.int32((states[column] & np.int32(1)) * sign)
            levels[np.uint64(to + j)] = np.float32(np.int32(level))
            states[column] = _after(states[column], code)


@compiled()
def walk_states(codes, n, center, odd):  # type: ignore[no-untyped-def]
    """Which levels a segment's codes belong to, 0 even or 1 odd: (r, n) uint8 into `odd`.

    Both are flat; `center` is int32.
    """
    states = np.zeros(n, np.int32)
    for at in range(0, len(codes), n):
        for j in range(n):
            column, place = np.uint64(j), np.uint64(at + j)
            odd[place] = np.uint8(states[column] & np.int32(1))
            states[column] = _after(states[column], np.int32(codes[place]) ^ center)

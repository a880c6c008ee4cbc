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
def feed_back_trellis(  # type: ignore[no-untyped-def]
    rows, factors, groups, row_steps, column_steps, row_costs, column_costs, stretch, bits,
    row_classes, column_classes, following, codes,
):  # fmt: skip
    """Quantize at most `SEGMENT` rows, changing them; see `feed_back_rows`.

    Args:
        bits: (row classes, column classes, 2, 2·reach + 1), for even and odd levels.
        following: `NEXT`.
    """
    r, n = rows.shape
    reach = bits.shape[3] // 2
    errors = np.empty((r, BLOCK), np.float32)
    so_far, then = np.empty(_STATES, np.float32), np.empty(_STATES, np.float32)
    best, costs = np.zeros((2, 2), np.int32), np.empty((2, 2), np.float32)
    came_by = np.zeros((r, _STATES), np.int32)
    came_from = np.zeros((r, _STATES), np.int32)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        for j in range(start, stop):
            so_far[:] = _FAR
            so_far[0] = 0
            for i in range(r):
                x = stretch[groups[i], j] * rows[i, j] / (row_steps[i] * column_steps[j])
                table = bits[row_classes[i], column_classes[j]]
                _offer(x, row_costs[i] * column_costs[groups[i], j], table, reach, best, costs)
                then[:] = _FAR
                for state in range(_STATES):
                    for parity in range(2):
                        total = so_far[state] + costs[state & 1, parity]
                        target = following[state, parity]
                        if total < then[target]:
                            then[target] = total
                            came_by[i, target] = best[state & 1, parity]
                            came_from[i, target] = state
                least = then.min()
                for state in range(_STATES):
                    so_far[state] = min(then[state] - least, _FAR)
            state = so_far.argmin()
            for i in range(r - 1, -1, -1):
                code = came_by[i, state]
                state = came_from[i, state]
                codes[i, j] = code
                factor = factors[groups[i]]
                level = _level(code, state & 1) * (row_steps[i] * column_steps[j])
                error = (rows[i, j] - level) / factor[j, j]
                errors[i, j - start] = error
                for k in range(j + 1, stop):
                    rows[i, k] -= error * factor[j, k]
        push(rows, factors, groups, errors, start, stop)


@compiled()
def trellis_levels(codes, center, following, levels):  # type: ignore[no-untyped-def]
    """The levels of a segment's codes, the code `center` being 0: (r, n) int32 into `levels`."""
    r, n = codes.shape
    states = np.zeros(n, np.int32)
    for i in range(r):
        for j in range(n):
            code = int(codes[i, j]) - center
            levels[i, j] = _level(code, states[j] & 1)
            states[j] = following[states[j], code & 1]


@compiled()
def walk_states(codes, center, following, odd):  # type: ignore[no-untyped-def]
    """Which levels a segment's codes belong to, 0 even or 1 odd: (r, n) uint8 into `odd`."""
    r, n = codes.shape
    states = np.zeros(n, np.int32)
    for i in range(r):
        for j in range(n):
            odd[i, j] = states[j] & 1
            states[j] = following[states[j], (codes[i, j] ^ center) & 1]

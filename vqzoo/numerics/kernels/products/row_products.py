"""Products of inputs with rows of scalar codes, and the decoding of such rows.

Codes of 1, 2 or 4 bits are packed along rows as `decoding.packed` says: byte j of a row's `run`
bytes, a multiple of 16, holds code t·run + j in its bits from t·width on. They are looked up in
registers. Inputs have zeros where rows have no codes.
"""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.code_lines import (
    add_where_bit,
    as_line,
    bits_of,
    load_codes,
    look_up_line,
    multiply_add,
    spread_line,
    sum_line,
)
from vqzoo.numerics.kernels.codegen import compiles_for, prefetch
from vqzoo.numerics.kernels.lines import LINE, add_lines, load_line, store_line

HAS_MASKS = compiles_for("avx512bw")  # with which bits choose lanes of an addition
TOGETHER = 4  # inputs that share the unpacking of codes
BLOCK = 1536  # values of each of them that stay in the nearest cache while all rows meet them
STREAMS = 4  # rows that meet one input together: memory serves several streams faster than one
AHEAD = 4096  # bytes of a row of codes that are fetched before they are used
ROWS_AHEAD = 3  # the same in rows, where blocks of columns meet all rows


@compiled()
def jump_ahead(j, n):  # type: ignore[no-untyped-def]
    """How far behind byte j of a row of n, one of `STREAMS`, those lie that are to be fetched:
    towards the end of a row, those of the row that follows in its stream."""
    return AHEAD if j + AHEAD < n else AHEAD + (STREAMS - 1) * n


@compiled()
def add_sums(a, b, c, d, out, row, is_first):  # type: ignore[no-untyped-def]
    """Add the sums of four lines to a row of out (m, 4), flat; the first ones are put there."""
    at = 4 * row
    if is_first:
        out[at], out[at + 1], out[at + 2], out[at + 3] = 0, 0, 0, 0
    out[at] += sum_line(a)
    out[at + 1] += sum_line(b)
    out[at + 2] += sum_line(c)
    out[at + 3] += sum_line(d)


@compiled()
def multiply_packed(packed, width, run, table, x, start, stop, out):  # type: ignore[no-untyped-def]
    """out[i] = the sum over j of table[code(i, j)]·x[j], for rows start to stop - 1.

    Args:
        packed: flat, (m, run) uint8.
        table: 16 floats.
        x: (8 / width · run,).
        out: (m,).
    """
    if width == 1 and HAS_MASKS:
        _multiply_bits(packed, run, table, x, start, stop, out)
        return
    values, last = load_line(table, 0), stop - 1
    for row in range(start, stop, STREAMS):
        second, third, fourth = min(row + 1, last), min(row + 2, last), min(row + 3, last)
        places = (row * run, second * run, third * run, fourth * run)
        if width == 4:  # constants, for loops that are unrolled
            a, b, c, d = _four_packed(packed, places, 4, run, values, x)
        elif width == 2:
            a, b, c, d = _four_packed(packed, places, 2, run, values, x)
        else:
            a, b, c, d = _four_packed(packed, places, 1, run, values, x)
        out[row], out[second] = sum_line(a), sum_line(b)
        out[third], out[fourth] = sum_line(c), sum_line(d)


@compiled()
def _multiply_bits(packed, run, table, x, start, stop, out):  # type: ignore[no-untyped-def]
    """`multiply_packed` of bits: a row is that of zeros, and what its ones add to it."""
    zeros, last = np.float32(0), stop - 1
    for value in x:
        zeros += table[0] * value
    one = table[1] - table[0]
    for row in range(start, stop, STREAMS):
        second, third, fourth = min(row + 1, last), min(row + 2, last), min(row + 3, last)
        a, b, c, d = _four_rows_of_bits(
            packed, row * run, second * run, third * run, fourth * run, run, x
        )
        out[row], out[second] = zeros + one * sum_line(a), zeros + one * sum_line(b)
        out[third], out[fourth] = zeros + one * sum_line(c), zeros + one * sum_line(d)


@compiled(forceinline=True)
def _four_rows_of_bits(packed, i, j, k, p, run, x):  # type: ignore[no-untyped-def]
    """For each of four rows, at these places, sums of those values of x whose bit is set."""
    none = spread_line(np.float32(0))
    a, b, c, d = none, none, none, none
    for at in range(0, run, LINE):
        jump = jump_ahead(at, run)
        prefetch(packed, i + at + jump)
        prefetch(packed, j + at + jump)
        prefetch(packed, k + at + jump)
        prefetch(packed, p + at + jump)
        for slot in range(8):
            values, mask = load_line(x, slot * run + at), 1 << slot
            a = add_where_bit(a, packed, i + at, mask, values)
            b = add_where_bit(b, packed, j + at, mask, values)
            c = add_where_bit(c, packed, k + at, mask, values)
            d = add_where_bit(d, packed, p + at, mask, values)
    return a, b, c, d


@compiled(forceinline=True)
def _four_packed(packed, places, width, run, values, x):  # type: ignore[no-untyped-def]
    """For each of four rows, at these places, sums of values times those of x."""
    none = spread_line(np.float32(0))
    a, b, c, d = none, none, none, none
    for j in range(0, run, LINE):
        jump = jump_ahead(j, run)
        a = _added_packed(packed, places[0] + j, jump, width, run, values, x, j, a)
        b = _added_packed(packed, places[1] + j, jump, width, run, values, x, j, b)
        c = _added_packed(packed, places[2] + j, jump, width, run, values, x, j, c)
        d = _added_packed(packed, places[3] + j, jump, width, run, values, x, j, d)
    return a, b, c, d


@compiled(forceinline=True)
def _added_packed(packed, at, jump, width, run, values, x, j, total):  # type: ignore[no-untyped-def]
    """total + the values of 16 bytes of a row times those of x from position `j` on."""
    prefetch(packed, at + jump)
    codes, mask = load_codes(packed, at), (1 << width) - 1
    for slot in range(8 // width):
        value = look_up_line(values, bits_of(codes, slot * width, mask))
        total = multiply_add(value, load_line(x, slot * run + j), total)
    return total


@compiled()
def multiply_packed_together(packed, width, run, table, x, start, stop, out):  # type: ignore[no-untyped-def]
    """`multiply_packed` of four inputs: x (4, 8 / width · run), out (m, 4), both flat."""
    values, mask, none = load_line(table, 0), (1 << width) - 1, spread_line(np.float32(0))
    size, step = 8 // width * run, BLOCK * width // 8 // LINE * LINE
    for start_of_block in range(0, run, step):
        end_of_block = min(start_of_block + step, run)
        for row in range(start, stop):
            at = row * run
            a, b, c, d = none, none, none, none
            for j in range(start_of_block, end_of_block, LINE):
                prefetch(packed, at + ROWS_AHEAD * run + j)
                codes = load_codes(packed, at + j)
                to = j
                for first in range(0, 8, width):
                    value = look_up_line(values, bits_of(codes, first, mask))
                    a = multiply_add(value, load_line(x, to), a)
                    b = multiply_add(value, load_line(x, size + to), b)
                    c = multiply_add(value, load_line(x, 2 * size + to), c)
                    d = multiply_add(value, load_line(x, 3 * size + to), d)
                    to += run
            add_sums(a, b, c, d, out, row, start_of_block == 0)


@compiled()
def multiply_integers(codes, n, zero, x, start, stop, out):  # type: ignore[no-untyped-def]
    """out[i] = the sum over j of (codes[i, j] - zero)·x[j], for rows start to stop - 1.

    Args:
        codes: flat, (m, n) uint8.
        zero: float32.
        x: (n,).
        out: (m,).
    """
    none, shift, last = spread_line(np.float32(0)), spread_line(-zero), stop - 1
    whole = n // LINE * LINE
    for row in range(start, stop, STREAMS):
        second, third, fourth = min(row + 1, last), min(row + 2, last), min(row + 3, last)
        a, b, c, d = none, none, none, none
        for j in range(0, whole, LINE):
            jump, values = jump_ahead(j, n), load_line(x, j)
            a = _added_integers(codes, row * n + j, jump, shift, values, a)
            b = _added_integers(codes, second * n + j, jump, shift, values, b)
            c = _added_integers(codes, third * n + j, jump, shift, values, c)
            d = _added_integers(codes, fourth * n + j, jump, shift, values, d)
        out[row], out[second] = sum_line(a), sum_line(b)
        out[third], out[fourth] = sum_line(c), sum_line(d)
    for row in range(start, stop):
        for j in range(whole, n):
            out[row] += (np.float32(codes[row * n + j]) - zero) * x[j]


@compiled()
def _added_integers(codes, at, jump, shift, x, total):  # type: ignore[no-untyped-def]
    prefetch(codes, at + jump)
    return multiply_add(add_lines(as_line(load_codes(codes, at)), shift), x, total)


@compiled()
def multiply_integers_together(codes, n, zero, x, start, stop, out):  # type: ignore[no-untyped-def]
    """`multiply_integers` of four inputs: x (4, n), out (m, 4), both flat."""
    none, shift = spread_line(np.float32(0)), spread_line(-zero)
    whole = n // LINE * LINE
    for start_of_block in range(0, max(n, 1), BLOCK):
        end_of_block = min(start_of_block + BLOCK, whole)
        for row in range(start, stop):
            at = row * n
            a, b, c, d = none, none, none, none
            for j in range(start_of_block, end_of_block, LINE):
                prefetch(codes, at + ROWS_AHEAD * n + j)
                value = add_lines(as_line(load_codes(codes, at + j)), shift)
                a = multiply_add(value, load_line(x, j), a)
                b = multiply_add(value, load_line(x, n + j), b)
                c = multiply_add(value, load_line(x, 2 * n + j), c)
                d = multiply_add(value, load_line(x, 3 * n + j), d)
            add_sums(a, b, c, d, out, row, start_of_block == 0)
    for row in range(start, stop):
        for j in range(whole, n):
            value = np.float32(codes[row * n + j]) - zero
            for i in range(4):
                out[4 * row + i] += value * x[i * n + j]


@compiled(fastmath=True)
def multiply_table(codes, n, table, x, start, stop, out):  # type: ignore[no-untyped-def]
    """out[i] = the sum over j of table[codes[i, j]]·x[j], for rows start to stop - 1.

    Args:
        codes: flat, (m, n) uint8.
        table: a float for each code.
        x: (n,).
        out: (m,).
    """
    for row in range(start, stop):
        at = row * n
        total = np.float32(0)
        for j in range(n):
            total += table[np.uint64(codes[np.uint64(at + j)])] * x[np.uint64(j)]
        out[row] = total


@compiled(fastmath=True)
def multiply_table_together(codes, n, table, x, start, stop, out):  # type: ignore[no-untyped-def]
    """`multiply_table` of four inputs: x (n, 4), out (m, 4), both flat."""
    for row in range(start, stop):
        at = row * n
        a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for j in range(n):
            value = table[np.uint64(codes[np.uint64(at + j)])]
            a += value * x[np.uint64(4 * j)]
            b += value * x[np.uint64(4 * j + 1)]
            c += value * x[np.uint64(4 * j + 2)]
            d += value * x[np.uint64(4 * j + 3)]
        out[4 * row], out[4 * row + 1], out[4 * row + 2], out[4 * row + 3] = a, b, c, d


@compiled()
def decode_packed_rows(packed, width, run, table, n, start, stop, out):  # type: ignore[no-untyped-def]
    """out[i, j] = table[code(i, j)], for rows start to stop - 1 of a flat (m, n) `out`."""
    values, mask = load_line(table, 0), (1 << width) - 1
    for row in range(start, stop):
        at = row * run
        for j in range(0, run, LINE):
            codes = load_codes(packed, at + j)
            column = j
            for first in range(0, 8, width):
                if column + LINE <= n:
                    value = look_up_line(values, bits_of(codes, first, mask))
                    store_line(value, out, row * n + column)
                else:
                    for lane in range(n - column):
                        code = (np.int64(packed[at + j + lane]) >> first) & mask
                        out[row * n + column + lane] = table[code]
                column += run

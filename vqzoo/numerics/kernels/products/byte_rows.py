"""`row_products` of codes of eight bits, where the processor looks up bytes in registers."""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.code_lines import multiply_add, spread_line, sum_line
from vqzoo.numerics.kernels.codegen import prefetch
from vqzoo.numerics.kernels.lines import LINE, load_line, store_line
from vqzoo.numerics.kernels.products.byte_tables import (
    CODES,
    first_quarter,
    fourth_quarter,
    in_quarters,
    load_bytes,
    look_up_bytes,
    second_quarter,
    third_quarter,
    zero_bytes,
)
from vqzoo.numerics.kernels.products.row_products import (
    BLOCK,
    ROWS_AHEAD,
    STREAMS,
    add_sums,
    jump_ahead,
)

_TABLE = 256  # entries


@compiled()
def multiply_bytes(codes, n, planes, table, x, start, stop, out):  # type: ignore[no-untyped-def]
    """out[i] = the sum over j of table[codes[i, j]]·x[j], for rows start to stop - 1.

    Args:
        codes: flat, (m, n) uint8.
        planes: `byte_planes` of the table.
        table: float32.
        x: (n,).
        out: (m,).
    """
    none, whole, last = spread_line(np.float32(0)), n // CODES * CODES, stop - 1
    for row in range(start, stop, STREAMS):
        second, third, fourth = min(row + 1, last), min(row + 2, last), min(row + 3, last)
        a, b, c, d = none, none, none, none
        for j in range(0, whole, CODES):
            jump = jump_ahead(j, n)
            a = _added_row(codes, row * n + j, jump, planes, x, j, a)
            b = _added_row(codes, second * n + j, jump, planes, x, j, b)
            c = _added_row(codes, third * n + j, jump, planes, x, j, c)
            d = _added_row(codes, fourth * n + j, jump, planes, x, j, d)
        out[row], out[second] = sum_line(a), sum_line(b)
        out[third], out[fourth] = sum_line(c), sum_line(d)
    for row in range(start, stop):
        for j in range(whole, n):
            out[row] += table[np.uint64(codes[np.uint64(row * n + j)])] * x[np.uint64(j)]


@compiled()
def _added_row(codes, at, jump, planes, x, j, total):  # type: ignore[no-untyped-def]
    """total + the values of 64 codes of a row times those of x from position `j` on."""
    prefetch(codes, at + jump)
    one, two, three, four = _looked_up(codes, at, planes)
    return _added(one, two, three, four, x, j, total)


@compiled(forceinline=True)
def _looked_up(codes, at, planes):  # type: ignore[no-untyped-def]
    """The values of 64 codes from position `at` on, in four lines."""
    zeros, part = zero_bytes(), in_quarters(load_bytes(codes, at))
    low = look_up_bytes(planes, 0, part)
    middle = look_up_bytes(planes, _TABLE, part)
    high = look_up_bytes(planes, 2 * _TABLE, part)
    one, two = first_quarter(zeros, low, middle, high), second_quarter(zeros, low, middle, high)
    three, four = third_quarter(zeros, low, middle, high), fourth_quarter(zeros, low, middle, high)
    return one, two, three, four


@compiled()
def multiply_bytes_together(codes, n, planes, table, x, start, stop, out):  # type: ignore[no-untyped-def]
    """`multiply_bytes` of four inputs: x (4, n), out (m, 4), both flat."""
    none, whole = spread_line(np.float32(0)), n // CODES * CODES
    for start_of_block in range(0, max(n, 1), BLOCK):
        end_of_block = min(start_of_block + BLOCK, whole)
        for row in range(start, stop):
            at = row * n
            a, b, c, d = none, none, none, none
            for j in range(start_of_block, end_of_block, CODES):
                prefetch(codes, at + ROWS_AHEAD * n + j)
                one, two, three, four = _looked_up(codes, at + j, planes)
                a = _added(one, two, three, four, x, j, a)
                b = _added(one, two, three, four, x, n + j, b)
                c = _added(one, two, three, four, x, 2 * n + j, c)
                d = _added(one, two, three, four, x, 3 * n + j, d)
            add_sums(a, b, c, d, out, row, start_of_block == 0)
    for row in range(start, stop):
        for j in range(whole, n):
            value = table[np.uint64(codes[np.uint64(row * n + j)])]
            for i in range(4):
                out[4 * row + i] += value * x[i * n + j]


@compiled()
def _added(one, two, three, four, x, at, total):  # type: ignore[no-untyped-def]
    """total + four lines of values times those of x from position `at` on."""
    total = multiply_add(one, load_line(x, at), total)
    total = multiply_add(two, load_line(x, at + LINE), total)
    total = multiply_add(three, load_line(x, at + 2 * LINE), total)
    return multiply_add(four, load_line(x, at + 3 * LINE), total)


@compiled()
def decode_bytes(codes, start, stop, planes, table, out, to):  # type: ignore[no-untyped-def]
    """out[to : to + stop - start] = table[codes[start:stop]] of uint8 codes, with a table that
    `is_exact`."""
    whole = start + (stop - start) // CODES * CODES
    for at in range(start, whole, CODES):
        one, two, three, four = _looked_up(codes, at, planes)
        store_line(one, out, to)
        store_line(two, out, to + LINE)
        store_line(three, out, to + 2 * LINE)
        store_line(four, out, to + 3 * LINE)
        to += CODES
    for i in range(stop - whole):
        out[np.uint64(to + i)] = table[np.uint64(codes[np.uint64(whole + i)])]

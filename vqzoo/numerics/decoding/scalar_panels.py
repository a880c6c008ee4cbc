"""Products of panels of columns with a matrix of scalar codes.

The values of six rows and a few columns at a time are looked up, and multiplied while they are in
the nearest cache: that adds little to the time of a product with the matrix itself.
"""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.decoding.byte_rows import decode_bytes
from vqzoo.numerics.kernels.code_lines import (
    as_line,
    bits_of,
    load_codes,
    look_up_line,
    multiply_add,
    spread_line,
)
from vqzoo.numerics.kernels.lines import LINE, add_lines, load_line, store_line
from vqzoo.numerics.kernels.products.byte_tables import HAS_BYTE_TABLES
from vqzoo.numerics.kernels.products.panels import DEPTH, ROWS, multiply_panels

_PITCH = DEPTH + LINE  # floats from row to row of the values


@compiled()
def multiply_scalar_panels(codes, layout, values, scales, group, rows, panels, n, out, width):  # type: ignore[no-untyped-def]
    """out[i] = the products of row i with the columns of all panels.

    Args:
        codes: uint8, flat: each row takes `run` bytes.
        layout: (bits, run): the bits of a code, packed along rows if less than 8, see
            `decoding.packed`, and the bytes of a row.
        values: (table, planes): 16 floats if codes are packed, otherwise 256 or, if they are those
            of integers, only the code of 0; and the table's `byte_planes` if it `is_exact`.
        scales: flat, (rows, groups), that the values of a group of columns are multiplied by; empty
            if they are not.
        group: columns of a group, a multiple of 16, or n.
        rows: (start, stop).
        panels: (wide, narrow), as for `multiply_panels`.
        n, out, width: as for `multiply_panels`.
    """
    bits, run = layout
    buffer = np.empty(ROWS * _PITCH, np.float32)
    step = _even_part(run)
    for slot in range((n + run - 1) // run):
        end = min((slot + 1) * run, n)
        for first in range(slot * run, end, step):
            last = min(first + step, end)
            for row in range(rows[0], rows[1], ROWS):
                count = min(ROWS, rows[1] - row)
                for i in range(row, row + count):
                    at, to = i * run + first - slot * run, (i - row) * _PITCH
                    _fill(codes, at, bits, slot, values, last - first, buffer, to)
                    if len(scales) > 0:
                        factors = scales[i * ((n + group - 1) // group) :]
                        _scale(buffer, to, first, last, factors, group)
                part, target = (first, last), out[row * width :]
                multiply_panels(buffer, _PITCH, count, part, panels, n, target, width, first > 0)


@compiled()
def _even_part(run):  # type: ignore[no-untyped-def]
    """The columns that are looked up at a time: a multiple of 64, at most `DEPTH`."""
    parts = (run + DEPTH - 1) // DEPTH
    return ((run + parts - 1) // parts + 63) // 64 * 64


@compiled()
def _fill(codes, at, bits, slot, values, count, buffer, to):  # type: ignore[no-untyped-def]
    """buffer[to : to + count] = the values of codes from byte `at` on."""
    table, planes = values
    if bits < 8:
        line, mask = load_line(table, 0), (1 << bits) - 1
        for j in range(0, count, LINE):
            found = bits_of(load_codes(codes, at + j), slot * bits, mask)
            store_line(look_up_line(line, found), buffer, to + j)
    elif len(table) == 1:
        whole, shift = count // LINE * LINE, spread_line(-table[0])
        for j in range(0, whole, LINE):
            store_line(add_lines(as_line(load_codes(codes, at + j)), shift), buffer, to + j)
        for j in range(whole, count):
            buffer[to + j] = np.float32(codes[at + j]) - table[0]
    else:
        _fill_from_table(codes, at, table, planes, count, buffer, to)


@compiled()
def _one_by_one(codes, at, table, planes, count, buffer, to):  # type: ignore[no-untyped-def]
    for j in range(count):
        buffer[np.uint64(to + j)] = table[np.uint64(codes[np.uint64(at + j)])]


@compiled()
def _by_planes(codes, at, table, planes, count, buffer, to):  # type: ignore[no-untyped-def]
    if len(planes) > 0:
        decode_bytes(codes, at, at + count, planes, table, buffer, to)
    else:
        _one_by_one(codes, at, table, planes, count, buffer, to)


_fill_from_table = _by_planes if HAS_BYTE_TABLES else _one_by_one


@compiled()
def _scale(buffer, to, first, last, scales, group):  # type: ignore[no-untyped-def]
    """Multiply the values of columns (first, last) by their groups' scales."""
    none = spread_line(np.float32(0))
    for start in range(first // group * group, last, group):
        factor = spread_line(scales[start // group])
        for column in range(max(start, first), min(start + group, last), LINE):
            at = to + column - first
            store_line(multiply_add(load_line(buffer, at), factor, none), buffer, at)

"""Products of panels of columns with a matrix of scalar codes.

The values of six rows and a few columns at a time are looked up, and multiplied while they are in
the nearest cache: that adds little to the time of a product with the matrix itself. Bits of enough
rows choose among sums instead, see `kernels.panels.nibbles`.
"""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.code_lines import (
    as_line,
    bits_of,
    load_codes,
    look_up_line,
    multiply_add,
    spread_line,
)
from vqzoo.numerics.kernels.lines import LINE, add_lines, load_line, store_line
from vqzoo.numerics.kernels.panels.dense import DEPTH, PITCH, ROWS, multiply_panels
from vqzoo.numerics.kernels.panels.tasks import take_part
from vqzoo.numerics.kernels.products.byte_rows import decode_bytes
from vqzoo.numerics.kernels.products.byte_tables import HAS_BYTE_TABLES
from vqzoo.numerics.kernels.products.team import on_team_with


@compiled()
def multiply_scalar_panels(operands, rows, panels, n, out, width):  # type: ignore[no-untyped-def]
    """out[i] = the products of row i with the columns of all panels.

    Args:
        operands: (codes, layout, values, scales, group).
            codes: uint8, flat: each row takes `run` bytes.
            layout: (bits, run): the bits of a code, packed along rows if less than 8, see
                `decoding.packed`, and the bytes of a row.
            values: (table, planes): 16 floats if codes are packed, otherwise 256 or, if they are
                those of integers, only the code of 0; and the table's `byte_planes` if it
                `is_exact`.
            scales: flat, (rows, groups), that the values of a group of columns are multiplied by;
                empty if they are not.
            group: columns of a group, a multiple of 16, or n.
        rows, panels, n, out, width: see `tasks`.
    """
    codes, layout, values, scales, group = operands
    run = layout[1]
    buffer = np.empty(ROWS * PITCH, np.float32)
    step = _even_part(run)
    for slot in range((n + run - 1) // run):
        end = min((slot + 1) * run, n)
        for first in range(slot * run, end, step):
            part = (first, min(first + step, end))
            for row in range(rows[0], rows[1], ROWS):
                count = min(ROWS, rows[1] - row)
                at = row * run + first - slot * run
                _fill(codes, at, layout, slot, values, count, part[1] - first, buffer)
                if len(scales) > 0:
                    _scale(buffer, count, part, scales, row * ((n + group - 1) // group), n, group)
                target = out[row * width :]
                multiply_panels(buffer, PITCH, count, part, panels, n, target, width, first > 0)


@compiled()
def share_scalar_panels(team, bounds, operands, panels, n, target):  # type: ignore[no-untyped-def]
    """`multiply_scalar_panels` for the tasks of a team: see `tasks.take_part`."""
    on_team_with(
        team, take_part, multiply_scalar_panels, (team, bounds, operands, panels, n, target)
    )


@compiled()
def _even_part(run):  # type: ignore[no-untyped-def]
    """The columns that are looked up at a time: a multiple of 64, at most `DEPTH`."""
    parts = (run + DEPTH - 1) // DEPTH
    return ((run + parts - 1) // parts + 63) // 64 * 64


@compiled()
def _fill(codes, at, layout, slot, values, rows, count, buffer):  # type: ignore[no-untyped-def]
    """The values of `count` codes of each row, those of the first from byte `at` on.

    All rows are looked up in one call: numba counts the references to arrays at each.
    """
    bits, run = layout
    table, planes = values
    if bits < 8:
        line, mask = load_line(table, 0), (1 << bits) - 1
        for row in range(rows):
            for j in range(0, count, LINE):
                found = bits_of(load_codes(codes, at + row * run + j), slot * bits, mask)
                store_line(look_up_line(line, found), buffer, row * PITCH + j)
    elif len(table) == 1:
        whole, shift = count // LINE * LINE, spread_line(-table[0])
        for row in range(rows):
            source, to = at + row * run, row * PITCH
            for j in range(0, whole, LINE):
                integers = as_line(load_codes(codes, source + j))
                store_line(add_lines(integers, shift), buffer, to + j)
            for j in range(whole, count):
                buffer[to + j] = np.float32(codes[source + j]) - table[0]
    else:
        _fill_from_table(codes, at, run, table, planes, rows, count, buffer)


@compiled()
def _one_by_one(codes, at, run, table, planes, rows, count, buffer):  # type: ignore[no-untyped-def]
    for row in range(rows):
        source, to = at + row * run, row * PITCH
        for j in range(count):
            buffer[np.uint64(to + j)] = table[np.uint64(codes[np.uint64(source + j)])]


@compiled()
def _by_planes(codes, at, run, table, planes, rows, count, buffer):  # type: ignore[no-untyped-def]
    if len(planes) == 0:
        _one_by_one(codes, at, run, table, planes, rows, count, buffer)
        return
    for row in range(rows):
        source = at + row * run
        decode_bytes(codes, source, source + count, planes, table, buffer, row * PITCH)


_fill_from_table = _by_planes if HAS_BYTE_TABLES else _one_by_one


@compiled()
def _scale(buffer, rows, part, scales, at, n, group):  # type: ignore[no-untyped-def]
    """Multiply the values of columns `part` of some rows by their groups' scales, of which those of
    the first row are from position `at` on."""
    none, groups = spread_line(np.float32(0)), (n + group - 1) // group
    for row in range(rows):
        for number in range(part[0] // group, (part[1] + group - 1) // group):
            factor = spread_line(scales[at + row * groups + number])
            first, last = max(number * group, part[0]), min((number + 1) * group, part[1])
            for column in range(first, last, LINE):
                to = row * PITCH + column - part[0]
                store_line(multiply_add(load_line(buffer, to), factor, none), buffer, to)

"""Products of panels of columns with a matrix of codes of 1 or 4 bits, by tables of sums.

Four bits of a byte hold the codes of four columns of a row, or the code of a block of columns. A
table has a line for each of their 16 values: the product of the columns' values with a panel. It
takes little time to make, and then each row adds one line instead of multiplying one for each
column ("the method of four Russians", Arlazarov et al. 1970).

`layout` is (run, start, byte_step, row_step): the bytes that hold the codes of a row, as
`decoding.packed` says; where the first one is; and how far a row's bytes, and rows, are apart.
"""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.code_lines import multiply_add, spread_line
from vqzoo.numerics.kernels.lines import LINE, add_lines, code_at, load_line_or_zeros, store_line
from vqzoo.numerics.kernels.panels.tasks import take_part
from vqzoo.numerics.kernels.products.aligned import aligned_zeros
from vqzoo.numerics.kernels.products.lanes import load_lanes, spread_lanes, store_lanes
from vqzoo.numerics.kernels.products.team import on_team_with
from vqzoo.numerics.kernels.vectors import LANES, splat

FEWEST_ROWS = 48  # that save more time than the tables take
FEWEST_COLUMNS = 4  # of four bits of codes, that take longer to multiply than to add
TASK_ROWS = 128  # or a multiple, so that tables take a small part of a task's time
_ENTRIES = 16  # of the table of four bits
_BYTES = 4  # of each row, whose tables stay in the nearest cache while rows meet them
_TABLES = 2 * _BYTES * _ENTRIES  # lines


@compiled()
def multiply_bits(operands, rows, panels, n, out, width):  # type: ignore[no-untyped-def]
    """out[i] = the products of row i of values[codes] with the columns of all panels.

    Args:
        operands: (codes, run, values): uint8, flat, each row takes `run` bytes, of eight codes
            each; and two floats, or more.
        rows, panels, n, out, width: see `tasks`.
    """
    codes, run, values = operands
    wide, narrow = panels
    if len(wide) > 0:
        none = splat(np.float32(0))
        _meet_bits(none, LANES, codes, run, values, rows, wide, n, out, width, 0)
    if len(narrow) > 0:
        line, to = spread_line(np.float32(0)), len(wide) // n
        _meet_bits(line, LINE, codes, run, values, rows, narrow, n, out, width, to)


@compiled()
def share_bits(team, bounds, operands, panels, n, target):  # type: ignore[no-untyped-def]
    """`multiply_bits` for the tasks of a team: see `tasks.take_part`."""
    args = (team, bounds, operands, panels, n, target)
    on_team_with(team, take_part, multiply_bits, args)


@compiled()
def _meet_bits(none, lanes, codes, run, values, rows, panels, n, out, width, to):  # type: ignore[no-untyped-def]
    """`multiply_bits` of panels of one width."""
    sums, layout = aligned_zeros(_TABLES * lanes), (run, 0, 1, run)
    for panel in range(len(panels) // (n * lanes)):
        place = to + panel * lanes
        for first in range(0, min(run, n), _BYTES):
            _fill_from_bits(panels, panel * n * lanes, lanes, n, run, first, values, sums)
            _add_sums(none, lanes, codes, layout, first, sums, rows, out, place, width, first > 0)


@compiled()
def _fill_from_bits(panels, at, lanes, n, run, first, values, sums):  # type: ignore[no-untyped-def]
    """Make the tables of the bytes from `first` on, two a byte, of the panel at position `at`.

    Calls are of lines alone: numba counts the references to arrays at each.
    """
    a, b = spread_line(values[np.uint64(0)]), spread_line(values[np.uint64(1)])
    to, apart = 0, run * lanes
    for byte in range(first, first + _BYTES):
        for column in range(byte, byte + 8 * run, 4 * run):
            for lane in range(0, lanes, LINE):
                place = at + column * lanes + lane
                x = load_line_or_zeros(panels, place, column < n)
                y = load_line_or_zeros(panels, place + apart, column + run < n)
                z = load_line_or_zeros(panels, place + 2 * apart, column + 2 * run < n)
                w = load_line_or_zeros(panels, place + 3 * apart, column + 3 * run < n)
                low, high = _sums_of_two(x, y, a, b), _sums_of_two(z, w, a, b)
                _store_sums(low, high[0], sums, to + lane, lanes)
                _store_sums(low, high[1], sums, to + lane + 4 * lanes, lanes)
                _store_sums(low, high[2], sums, to + lane + 8 * lanes, lanes)
                _store_sums(low, high[3], sums, to + lane + 12 * lanes, lanes)
            to += _ENTRIES * lanes


@compiled(forceinline=True)
def _sums_of_two(x, y, a, b):  # type: ignore[no-untyped-def]
    """The sums of x and y, each times a or b: x's factor changes first."""
    none = spread_line(np.float32(0))
    low, high = multiply_add(x, a, none), multiply_add(x, b, none)
    return (
        multiply_add(y, a, low),
        multiply_add(y, a, high),
        multiply_add(y, b, low),
        multiply_add(y, b, high),
    )


@compiled(forceinline=True)
def _store_sums(low, high, sums, to, lanes):  # type: ignore[no-untyped-def]
    store_line(add_lines(low[0], high), sums, to)
    store_line(add_lines(low[1], high), sums, to + lanes)
    store_line(add_lines(low[2], high), sums, to + 2 * lanes)
    store_line(add_lines(low[3], high), sums, to + 3 * lanes)


@compiled()
def multiply_nibbles(operands, rows, panels, n, out, width):  # type: ignore[no-untyped-def]
    """`multiply_block_panels`, which has the arguments, of uint8 codes of four bits."""
    codes, packing, book, (number, column), add = operands
    span = (number, column, rows[0], rows[1])
    wide, narrow = panels
    if len(wide) > 0:
        none = splat(np.float32(0))
        _meet_blocks(none, LANES, codes, packing, book, span, wide, n, out, width, 0, add)
    if len(narrow) > 0:
        line, to = spread_line(np.float32(0)), len(wide) // n
        _meet_blocks(line, LINE, codes, packing, book, span, narrow, n, out, width, to, add)


@compiled()
def share_nibbles(team, bounds, operands, panels, n, target):  # type: ignore[no-untyped-def]
    """`multiply_nibbles` for the tasks of a team: see `tasks.take_part`."""
    args = (team, bounds, operands, panels, n, target)
    on_team_with(team, take_part, multiply_nibbles, args)


@compiled()
def _meet_blocks(none, lanes, codes, packing, book, span, panels, n, out, width, to, add):  # type: ignore[no-untyped-def]
    """`multiply_nibbles` of panels of one width."""
    _, run, stride = packing
    blocks, rows, stages = span[0], (span[2], span[3]), book[2]
    sums = aligned_zeros(_TABLES * lanes)
    for panel in range(len(panels) // (n * lanes)):
        at, place = (panel * n + span[1]) * lanes, to + panel * lanes
        for stage in range(stages):
            layout = (run, stage * stride, stages * stride, 1)
            for first in range(0, run, _BYTES):
                more = add or first + stage > 0
                _fill_from_centroids(none, panels, at, lanes, blocks, run, first, book, stage, sums)
                _add_sums(none, lanes, codes, layout, first, sums, rows, out, place, width, more)


@compiled()
def _fill_from_centroids(none, panels, at, lanes, blocks, run, first, book, stage, sums):  # type: ignore[no-untyped-def]
    """Make the tables of the bytes from `first` on, two a byte, of the panel whose columns of the
    first block are at position `at`."""
    codebooks, shared, stages, k, d = book
    to = 0
    for byte in range(first, first + _BYTES):
        for block in range(byte, byte + 2 * run, run):
            dims = d if byte < run and block < blocks else 0  # the sums of no columns are 0
            start = ((0 if shared else block * stages) + stage) * k * d
            for entry in range(0, _ENTRIES, 4):
                i, j = start + min(entry, k - 1) * d, start + min(entry + 1, k - 1) * d
                p, q = start + min(entry + 2, k - 1) * d, start + min(entry + 3, k - 1) * d
                a, b, c, e = none, none, none, none
                line = at + block * d * lanes
                for dim in range(dims):
                    x = load_lanes(none, panels, line)
                    a = multiply_add(spread_lanes(none, codebooks, i + dim), x, a)
                    b = multiply_add(spread_lanes(none, codebooks, j + dim), x, b)
                    c = multiply_add(spread_lanes(none, codebooks, p + dim), x, c)
                    e = multiply_add(spread_lanes(none, codebooks, q + dim), x, e)
                    line += lanes
                store_lanes(a, sums, to)
                store_lanes(b, sums, to + lanes)
                store_lanes(c, sums, to + 2 * lanes)
                store_lanes(e, sums, to + 3 * lanes)
                to += 4 * lanes


@compiled()
def _add_sums(none, lanes, codes, layout, first, sums, rows, out, to, width, add):  # type: ignore[no-untyped-def]
    """Add up the entries of a few of each row's bytes, or add them to what is there."""
    run, start, byte_step, row_step = layout
    rest = run - 1 - first  # behind the last byte, it is read again, and finds zeros
    j, k, p = min(1, rest) * byte_step, min(2, rest) * byte_step, min(3, rest) * byte_step
    for row in range(rows[0], rows[1]):
        place, at = to + row * width, start + first * byte_step + row * row_step
        total = load_lanes(none, out, place) if add else none
        total = _add_byte(total, codes, at, sums, 0, lanes)
        total = _add_byte(total, codes, at + j, sums, 2 * _ENTRIES * lanes, lanes)
        total = _add_byte(total, codes, at + k, sums, 4 * _ENTRIES * lanes, lanes)
        total = _add_byte(total, codes, at + p, sums, 6 * _ENTRIES * lanes, lanes)
        store_lanes(total, out, place)


@compiled(forceinline=True)
def _add_byte(total, codes, at, sums, table, lanes):  # type: ignore[no-untyped-def]
    """The total and the entries of both halves of a byte."""
    byte = code_at(codes, at)
    low, high = byte & (_ENTRIES - 1), byte >> 4
    total = add_lines(total, load_lanes(total, sums, table + low * lanes))
    return add_lines(total, load_lanes(total, sums, table + (_ENTRIES + high) * lanes))

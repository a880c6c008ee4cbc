"""Products of panels of columns with a matrix whose blocks of rows are centroids.

The values of a few rows and columns at a time are copied to a buffer, and multiplied while they are
in the nearest cache. A code is read once for all rows of its block among them, and four of its
values are copied at once.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.codegen import address
from vqzoo.numerics.kernels.lines import LINE, gather_line, line
from vqzoo.numerics.kernels.panels.centroids import centroid_at
from vqzoo.numerics.kernels.panels.dense import DEPTH, PITCH, ROWS, multiply_panels
from vqzoo.numerics.kernels.panels.tasks import take_part
from vqzoo.numerics.kernels.products.team import on_team_with

TOGETHER = 2 * ROWS  # rows of the buffer: whole sixes and, of blocks of four, whole blocks
_QUAD = 4  # values of a centroid that are copied at once
_FLOATS = ir.VectorType(ir.FloatType(), LINE)
_LANES = ir.VectorType(ir.IntType(32), LINE)


@compiled()
def multiply_row_block_panels(operands, rows, panels, n, out, width):  # type: ignore[no-untyped-def]
    """out[i] = the products of row i with the columns of all panels.

    Args:
        operands: (codes, layout, book).
            codes: uint8, uint16 or int32, flat: each block takes `run` elements. A code beyond the
                codebook reads its last centroid.
            layout: (bits, run): the bits of a code, packed along columns if less than 8, see
                `decoding.packed`, or 32; and the elements of a block.
            book: (codebooks, shared, k, d): codebooks are flat, (blocks or 1, k, d); `shared` says
                that all blocks have the same.
        rows, panels, n, out, width: see `tasks`.
    """
    codes, layout, book = operands
    bits, run = layout
    mask, most, d = (1 << bits) - 1, book[2] - 1, book[3]
    buffer = np.empty(TOGETHER * PITCH, np.float32)
    for slot in range((n + run - 1) // run):
        look = (slot * bits, mask, most, d)
        end = min((slot + 1) * run, n)
        for first in range(slot * run, end, DEPTH):
            part = (first, min(first + DEPTH, end))
            places = (first - slot * run, part[1] - slot * run)
            for row in range(rows[0], rows[1], TOGETHER):
                count = min(TOGETHER, rows[1] - row)
                _fill(codes, run, look, book, (row, count), places, buffer)
                target = out[row * width :]
                multiply_panels(buffer, PITCH, count, part, panels, n, target, width, first > 0)


@compiled()
def share_row_block_panels(team, bounds, operands, panels, n, target):  # type: ignore[no-untyped-def]
    """`multiply_row_block_panels` for the tasks of a team: see `tasks.take_part`."""
    on_team_with(
        team, take_part, multiply_row_block_panels, (team, bounds, operands, panels, n, target)
    )


@compiled()
def _fill(codes, run, look, book, rows, places, buffer):  # type: ignore[no-untyped-def]
    """The values of (first, number of) rows at (start, stop) of each block's codes.

    Values are copied four by four as far as there are as many; the last four overlap those before.
    """
    codebooks, shared, k, d = book
    whole = places[1] - (places[1] - places[0]) % LINE
    done = 0
    while done < rows[1]:
        block, dim = divmod(rows[0] + done, d)
        dims = min(d - dim, rows[1] - done)
        source, at, to = (0 if shared else block * k * d) + dim, block * run, done * PITCH
        if dims >= _QUAD:
            for quad in range(0, dims, _QUAD):
                first = min(quad, dims - _QUAD)
                begin = to + first * PITCH - places[0]
                for j in range(places[0], whole, LINE):
                    a = _gather(codes, at + j, codebooks, source + first, look)
                    b = _gather(codes, at + j + 4, codebooks, source + first, look)
                    c = _gather(codes, at + j + 8, codebooks, source + first, look)
                    e = _gather(codes, at + j + 12, codebooks, source + first, look)
                    _store_by_rows(a, b, c, e, buffer, begin + j, PITCH)
        rest = whole if dims >= _QUAD else places[0]
        for i in range(dims):
            begin = to + i * PITCH - places[0]
            for j in range(rest, places[1]):
                value = codebooks[np.uint64(source + i + centroid_at(codes, at + j, look))]
                buffer[np.uint64(begin + j)] = value
        done += dims


@compiled(forceinline=True)
def _gather(codes, at, codebooks, source, look):  # type: ignore[no-untyped-def]
    """Four values of the centroids of four codes."""
    return gather_line(
        codebooks,
        source + centroid_at(codes, at, look),
        source + centroid_at(codes, at + 1, look),
        source + centroid_at(codes, at + 2, look),
        source + centroid_at(codes, at + 3, look),
    )


@intrinsic
def _store_by_rows(
    typing_context: Any, a: Any, b: Any, c: Any, d: Any, target: Any, to: Any, pitch: Any
) -> Any:
    """Write the first values of 16 centroids, four in each line, to position `to` of a float32
    array, their second values `pitch` behind, and so on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def mixed(one: Any, other: Any, lanes: list[int]) -> Any:
            return builder.shuffle_vector(one, other, ir.Constant(_LANES, lanes))

        lines, place, half = args[:4], args[5], LINE // 2
        for value in (0, 2):
            lanes = [
                vector * LINE + centroid * 4 + value + i
                for i in range(2)
                for vector in range(2)
                for centroid in range(4)
            ]
            left, right = mixed(lines[0], lines[1], lanes), mixed(lines[2], lines[3], lanes)
            for start in (0, half):
                halves = [start + vector * LINE + i for vector in range(2) for i in range(half)]
                row = address(context, builder, signature.args[4], args[4], place, _FLOATS)
                builder.store(mixed(left, right, halves), row).align = 4
                place = builder.add(place, args[6])
        return context.get_dummy_value()

    return types.void(line, line, line, line, target, types.intp, types.intp), generate

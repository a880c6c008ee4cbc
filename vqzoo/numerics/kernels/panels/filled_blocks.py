"""Products of many panels of columns with a matrix whose blocks of columns are sums of centroids.

The values of a few rows and columns are written out once, and meet all panels.

Arguments are those of `blocks`.
"""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.lines import LINE, add_lines, code_at, load_line, store_line
from vqzoo.numerics.kernels.panels.dense import DEPTH, ROWS, multiply_panels

MANY_PANELS = 3  # that add up centroids more often than it takes time to write sums out
_PITCH = DEPTH + LINE  # floats from row to row of the values


@compiled()
def multiply_filled_panels(codes, packing, book, span, panels, n, out, width, add):  # type: ignore[no-untyped-def]
    """out[i] = the products of row i with the columns of all panels, or add them to it.

    Args:
        book: d is at most `DEPTH`, all blocks share codebooks, and 16 floats follow them.
        codes, packing, span, panels, n, out, width, add: as there.
    """
    buffer = np.empty(ROWS * _PITCH, np.float32)
    blocks, column, run, d = span[0], span[1], packing[1], book[4]
    step = DEPTH // d
    for slot in range((blocks + run - 1) // run):
        for first in range(slot * run, min((slot + 1) * run, blocks), step):
            last = min(first + step, (slot + 1) * run, blocks)
            part = (column + first * d, column + last * d)
            for row in range(span[2], span[3], ROWS):
                count = min(ROWS, span[3] - row)
                _fill(codes, packing, book, first, last, row, count, buffer)
                more, target = add or first > 0, out[row * width :]
                multiply_panels(buffer, _PITCH, count, part, panels, n, target, width, more)


@compiled()
def _fill(codes, packing, book, first, last, row, rows, buffer):  # type: ignore[no-untyped-def]
    """The values of some blocks of some rows: lines are copied whole, and what is behind a centroid
    is overwritten by the next one."""
    bits, run, stride = packing
    codebooks, _, stages, k, d = book
    slot = first // run
    low, mask, most = slot * bits, (1 << bits) - 1, k - 1
    for block in range(first, last):
        at, to = (block - slot * run) * stages * stride + row, (block - first) * d
        for i in range(rows):
            for dim in range(0, d, LINE):
                place, source = at + i, dim
                code = min(code_at(codes, place) >> low & mask, most)
                value = load_line(codebooks, source + code * d)
                for _ in range(1, stages):
                    place, source = place + stride, source + k * d
                    code = min(code_at(codes, place) >> low & mask, most)
                    value = add_lines(value, load_line(codebooks, source + code * d))
                store_line(value, buffer, to + dim)
            to += _PITCH

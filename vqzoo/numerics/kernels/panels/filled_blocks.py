"""Products of many panels of columns with a matrix whose blocks of columns are sums of centroids.

The values of a few rows and columns are written out once, and meet all panels.

Arguments are those of `blocks`.
"""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.lines import LINE, add_lines, load_line, store_line
from vqzoo.numerics.kernels.panels.centroids import centroid_at
from vqzoo.numerics.kernels.panels.dense import DEPTH, PITCH, ROWS, multiply_panels

MANY_PANELS = 3  # that add up centroids more often than it takes time to write sums out


@compiled()
def multiply_filled_panels(operands, rows, panels, n, out, width):  # type: ignore[no-untyped-def]
    """`multiply_block_panels`, which has the arguments, where all blocks share codebooks, and d is
    at most `DEPTH`."""
    codes, packing, book, (blocks, column), add = operands
    buffer = np.empty(ROWS * PITCH, np.float32)
    run, d = packing[1], book[4]
    step = DEPTH // d
    for slot in range((blocks + run - 1) // run):
        for first in range(slot * run, min((slot + 1) * run, blocks), step):
            last = min(first + step, (slot + 1) * run, blocks)
            part = (column + first * d, column + last * d)
            for row in range(rows[0], rows[1], ROWS):
                count = min(ROWS, rows[1] - row)
                _fill(codes, packing, book, first, last, row, count, buffer)
                more, target = add or first > 0, out[row * width :]
                multiply_panels(buffer, PITCH, count, part, panels, n, target, width, more)


@compiled()
def _fill(codes, packing, book, first, last, row, rows, buffer):  # type: ignore[no-untyped-def]
    """The values of some blocks of some rows: lines are copied whole, and what is behind a centroid
    is overwritten by the next one."""
    bits, run, stride = packing
    codebooks, _, stages, k, d = book
    slot = first // run
    look = (slot * bits, (1 << bits) - 1, k - 1, d)
    for block in range(first, last):
        at, to = (block - slot * run) * stages * stride + row, (block - first) * d
        for i in range(rows):
            for dim in range(0, d, LINE):
                place, source = at + i, dim
                value = load_line(codebooks, source + centroid_at(codes, place, look))
                for _ in range(1, stages):
                    place, source = place + stride, source + k * d
                    more = load_line(codebooks, source + centroid_at(codes, place, look))
                    value = add_lines(value, more)
                store_line(value, buffer, to + dim)
            to += PITCH

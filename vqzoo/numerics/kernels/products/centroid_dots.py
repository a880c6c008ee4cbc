"""Products of one input with rows of codes, centroid by centroid.

Where a codebook has more centroids than tables of products are worth, each code's centroid is
multiplied by the values of the input that it meets.
"""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.code_lines import multiply_add, spread_line, sum_line
from vqzoo.numerics.kernels.lines import LINE, code_at, load_line

ROWS = 8
"""Rows that meet the input together."""


@compiled()
def add_dots(x, codes, codebooks, sizes, start, stop, sums):  # type: ignore[no-untyped-def]
    """sums[i] = the product of the input with row i, for rows start to stop - 1.

    Args:
        x: flat, (blocks, 16): the input's sub-vectors, then zeros.
        codes: flat, a line of m codes for each stage of each block.
        codebooks: flat, (stages, k, d), then 16 finite floats.
        sizes: (blocks, stages, m, k, d), with d at most 16.
        sums: (m,).
    """
    blocks, stages, m, k, d = sizes
    none, most, last = spread_line(np.float32(0)), k - 1, stop - 1
    for row in range(start, stop, ROWS):
        two, three, four = min(row + 1, last), min(row + 2, last), min(row + 3, last)
        five, six, seven = min(row + 4, last), min(row + 5, last), min(row + 6, last)
        eight = min(row + 7, last)
        a, b, c, e, f, g, h, i = none, none, none, none, none, none, none, none
        at = 0
        for block in range(blocks):
            part = load_line(x, block * LINE)
            for stage in range(stages):
                book = stage * k * d
                a = _added(codes, at + row, codebooks, book, most, d, part, a)
                b = _added(codes, at + two, codebooks, book, most, d, part, b)
                c = _added(codes, at + three, codebooks, book, most, d, part, c)
                e = _added(codes, at + four, codebooks, book, most, d, part, e)
                f = _added(codes, at + five, codebooks, book, most, d, part, f)
                g = _added(codes, at + six, codebooks, book, most, d, part, g)
                h = _added(codes, at + seven, codebooks, book, most, d, part, h)
                i = _added(codes, at + eight, codebooks, book, most, d, part, i)
                at += m
        sums[row], sums[two], sums[three] = sum_line(a), sum_line(b), sum_line(c)
        sums[four], sums[five], sums[six] = sum_line(e), sum_line(f), sum_line(g)
        sums[seven], sums[eight] = sum_line(h), sum_line(i)


@compiled(forceinline=True)
def _added(codes, at, codebooks, book, most, d, part, total):  # type: ignore[no-untyped-def]
    source = book + min(code_at(codes, at), most) * d
    return multiply_add(load_line(codebooks, source), part, total)

"""Products of a few rows of a matrix with panels: columns that lie side by side in registers.

A panel holds LANES columns, line by line. Six rows meet a panel at once: their sums stay in
registers, and each line of the panel is read once for all six.
"""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels import code_lines
from vqzoo.numerics.kernels.code_lines import spread_line
from vqzoo.numerics.kernels.lines import LINE, load_line, store_line
from vqzoo.numerics.kernels.vectors import LANES, broadcast, load, multiply_add, splat, store

ROWS = 6
_DEPTH = 512  # lines of a panel that stay in the caches while all rows meet them


@compiled()
def gather_panels(source, rows, columns, lanes, out):  # type: ignore[no-untyped-def]
    """out[p, k, lane] = source[rows[k] + columns[p·lanes + lane]]; all of them flat.

    Args:
        source: float32.
        rows, columns: int64, not negative.
        out: float32.
    """
    depth = rows.shape[0]
    to = 0
    for first in range(0, columns.shape[0], lanes):
        in_a_row = True
        for lane in range(lanes):
            in_a_row &= columns[first + lane] == columns[first] + lane
        for k in range(depth):
            start = rows[k]
            if in_a_row:  # vectors are copied sooner than floats
                start += columns[first]
                for part in range(0, lanes, LINE):
                    store_line(load_line(source, start + part), out, to + part)
                to += lanes
                continue
            for lane in range(lanes):
                place = np.uint64(start + columns[np.uint64(first + lane)])
                out[np.uint64(to + lane)] = source[place]
            to += lanes


@compiled()
def multiply_panels(matrix, rows, n, panels, out, width, place):  # type: ignore[no-untyped-def]
    """out[i, :LANES·count] = the products of row i with the columns of all panels.

    Args:
        matrix: flat, (rows, n).
        panels: flat, (count, n, LANES).
        out: flat; rows begin `width` apart, the first of them at `place`.
    """
    none, whole = splat(np.float32(0)), rows // ROWS * ROWS
    for k0 in range(0, n, _DEPTH):
        k1 = min(k0 + _DEPTH, n)
        for panel in range(panels.shape[0] // (n * LANES)):
            base = panel * n * LANES
            for row in range(0, whole, ROWS):
                at, to = row * n, place + row * width + panel * LANES
                a, b, c, d, e, f = none, none, none, none, none, none
                if k0 > 0:
                    a, b = load(out, to), load(out, to + width)
                    c, d = load(out, to + 2 * width), load(out, to + 3 * width)
                    e, f = load(out, to + 4 * width), load(out, to + 5 * width)
                for k in range(k0, k1):
                    line = load(panels, base + k * LANES)
                    a = multiply_add(broadcast(matrix, at + k), line, a)
                    b = multiply_add(broadcast(matrix, at + n + k), line, b)
                    c = multiply_add(broadcast(matrix, at + 2 * n + k), line, c)
                    d = multiply_add(broadcast(matrix, at + 3 * n + k), line, d)
                    e = multiply_add(broadcast(matrix, at + 4 * n + k), line, e)
                    f = multiply_add(broadcast(matrix, at + 5 * n + k), line, f)
                store(out, to, a)
                store(out, to + width, b)
                store(out, to + 2 * width, c)
                store(out, to + 3 * width, d)
                store(out, to + 4 * width, e)
                store(out, to + 5 * width, f)
            for row in range(whole, rows):
                at, to = row * n, place + row * width + panel * LANES
                a = none if k0 == 0 else load(out, to)
                for k in range(k0, k1):
                    a = multiply_add(broadcast(matrix, at + k), load(panels, base + k * LANES), a)
                store(out, to, a)


@compiled()
def multiply_narrow_panel(matrix, rows, n, panel, out, width, place):  # type: ignore[no-untyped-def]
    """`multiply_panels` of one panel of 16 columns."""
    none, whole = spread_line(np.float32(0)), rows // ROWS * ROWS
    for row in range(0, whole, ROWS):
        at, to = row * n, place + row * width
        a, b, c, d, e, f = none, none, none, none, none, none
        for k in range(n):
            line = load_line(panel, k * LINE)
            a = code_lines.multiply_add(spread_line(matrix[np.uint64(at + k)]), line, a)
            b = code_lines.multiply_add(spread_line(matrix[np.uint64(at + n + k)]), line, b)
            c = code_lines.multiply_add(spread_line(matrix[np.uint64(at + 2 * n + k)]), line, c)
            d = code_lines.multiply_add(spread_line(matrix[np.uint64(at + 3 * n + k)]), line, d)
            e = code_lines.multiply_add(spread_line(matrix[np.uint64(at + 4 * n + k)]), line, e)
            f = code_lines.multiply_add(spread_line(matrix[np.uint64(at + 5 * n + k)]), line, f)
        store_line(a, out, to)
        store_line(b, out, to + width)
        store_line(c, out, to + 2 * width)
        store_line(d, out, to + 3 * width)
        store_line(e, out, to + 4 * width)
        store_line(f, out, to + 5 * width)
    for row in range(whole, rows):
        at = row * n
        a = none
        for k in range(n):
            value = spread_line(matrix[np.uint64(at + k)])
            a = code_lines.multiply_add(value, load_line(panel, k * LINE), a)
        store_line(a, out, place + row * width)

"""The kernels of `decoding.decode`: centroids copied to where their codes stand.

Codes come as the pair (narrow, wide) of uint8 and int32 arrays, one of which is empty (see
`arrays.narrow_and_wide`). The inner kernels take whichever holds the codes as `codes`; they contain
whole loops, since numba updates the arrays' reference counts at every call.

`packing` is (width, run, stride): the bits of a code, which are 32 if it has an element of the
array for itself; the blocks that share bits of the array's elements with no other one of them, see
`decoding.packed`; and the elements from one line of codes, those of a block and stage, to the next.
"""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.lines import (
    LINE,
    add_lines,
    code_at,
    fence,
    gather_line,
    load_line,
    store_line,
    stream_line,
)

BAND = 128  # values of a row that are written together: their codebooks stay in the caches
_ROWS = 32  # at a time: more would exceed the entries of the translation lookaside buffer
_PITCH = BAND + LINE  # floats from row to row of the buffer: not a power of two
_CHUNK = 4096  # scalar codes that are checked, then looked up while they are in the cache


@compiled()
def _all_below(k, narrow, wide, small, start, stop):  # type: ignore[no-untyped-def]
    """Whether codes start to stop - 1, of `narrow` if small, else of `wide`, are 0, ..., k - 1."""
    if small:
        most = np.uint8(0)
        for i in range(start, stop):
            most = max(most, narrow[np.uint64(i)])
        return most < k
    high, low = np.int32(0), np.int32(0)
    for i in range(start, stop):
        high = max(high, wide[np.uint64(i)])
        low = min(low, wide[np.uint64(i)])
    return low >= 0 and high < k


@compiled()
def _position(column, packing, stages, k, d, shared):  # type: ignore[no-untyped-def]
    """Of the block that a column belongs to: the place of its first code, that of the column in its
    first centroid, and the lowest bit of its codes."""
    width, run, stride = packing
    block = column // d
    slot = block // run
    book = 0 if shared else block * stages * k * d
    return (block - slot * run) * stages * stride, book + column - block * d, slot * width


@compiled()
def _fill_lines(  # type: ignore[no-untyped-def]
    codes, packing, stages, k, d, codebooks, shared, columns, rows, out, stride, aligned
):
    """Fill rows and columns (start, stop) of `out`: whole lines, d a multiple of 4.

    Lines are assembled in a buffer that fits the cache and written in bursts: a line that is
    assembled in registers and written at once is written in four parts.
    """
    buffer, mask = np.empty(_ROWS * _PITCH, np.float32), (1 << packing[0]) - 1
    for top in range(rows[0], rows[1], _ROWS):
        bottom = min(top + _ROWS, rows[1])
        for left in range(columns[0], columns[1], BAND):
            right = min(left + BAND, columns[1])
            for column in range(left, right, LINE):
                at0, from0, low0 = _position(column, packing, stages, k, d, shared)
                at1, from1, low1 = _position(column + 4, packing, stages, k, d, shared)
                at2, from2, low2 = _position(column + 8, packing, stages, k, d, shared)
                at3, from3, low3 = _position(column + 12, packing, stages, k, d, shared)
                for stage in range(stages):
                    on, book = stage * packing[2], stage * k * d
                    to = column - left
                    for row in range(top, bottom):
                        value = gather_line(
                            codebooks,
                            book + from0 + (code_at(codes, on + at0 + row) >> low0 & mask) * d,
                            book + from1 + (code_at(codes, on + at1 + row) >> low1 & mask) * d,
                            book + from2 + (code_at(codes, on + at2 + row) >> low2 & mask) * d,
                            book + from3 + (code_at(codes, on + at3 + row) >> low3 & mask) * d,
                        )
                        if stage > 0:
                            value = add_lines(load_line(buffer, to), value)
                        store_line(value, buffer, to)
                        to += _PITCH
            for row in range(top, bottom):
                at, to = (row - top) * _PITCH, row * stride + left
                for column in range(0, right - left, LINE):
                    if aligned:
                        stream_line(load_line(buffer, at + column), out, to + column)
                    else:
                        store_line(load_line(buffer, at + column), out, to + column)


@compiled()
def _fill_short(  # type: ignore[no-untyped-def]
    codes, packing, stages, k, d, codebooks, shared, blocks, rows, out, stride
):
    """`_fill_blocks` of at most BAND columns: a centroid is copied as whole lines, whose rest the
    next block's overwrites, to a buffer that fits the cache. The memory behind the codebooks is not
    read."""
    mask, count = (1 << packing[0]) - 1, (blocks[1] - blocks[0]) * d
    buffer, last = np.empty(_ROWS * _PITCH, np.float32), len(codebooks) - (d + LINE - 1)
    for top in range(rows[0], rows[1], _ROWS):
        bottom = min(top + _ROWS, rows[1])
        for block in range(blocks[0], blocks[1]):
            first, centroid, low = _position(block * d, packing, stages, k, d, shared)
            for stage in range(stages):
                at, book = first + stage * packing[2], centroid + stage * k * d
                to = (block - blocks[0]) * d
                for row in range(top, bottom):
                    source = book + (code_at(codes, at + row) >> low & mask) * d
                    if source > last:
                        for dim in range(d):
                            if stage == 0:
                                buffer[to + dim] = codebooks[source + dim]
                            else:
                                buffer[to + dim] += codebooks[source + dim]
                    else:
                        for dim in range(0, d, LINE):
                            value = load_line(codebooks, source + dim)
                            if stage > 0:
                                value = add_lines(load_line(buffer, to + dim), value)
                            store_line(value, buffer, to + dim)
                    to += _PITCH
        for row in range(top, bottom):
            at, to = (row - top) * _PITCH, row * stride + blocks[0] * d
            whole = count // LINE * LINE
            for column in range(0, whole, LINE):
                store_line(load_line(buffer, at + column), out, to + column)
            for column in range(whole, count):
                out[to + column] = buffer[at + column]


@compiled()
def _fill_blocks(  # type: ignore[no-untyped-def]
    codes, packing, stages, k, d, codebooks, shared, blocks, rows, out, stride
):
    """Fill blocks and rows (start, stop) of `out`, for every d."""
    mask = (1 << packing[0]) - 1
    for top in range(rows[0], rows[1], _ROWS):
        bottom = min(top + _ROWS, rows[1])
        for block in range(blocks[0], blocks[1]):
            first, centroid, low = _position(block * d, packing, stages, k, d, shared)
            for stage in range(stages):
                at, book = first + stage * packing[2], centroid + stage * k * d
                to = top * stride + block * d
                for row in range(top, bottom):
                    source = book + (code_at(codes, at + row) >> low & mask) * d
                    if stage == 0:
                        for dim in range(d):
                            out[to + dim] = codebooks[source + dim]
                    else:
                        for dim in range(d):
                            out[to + dim] += codebooks[source + dim]
                    to += stride


@compiled()
def _fill_band(  # type: ignore[no-untyped-def]
    codes, packing, stages, k, d, codebooks, shared, blocks, rows, out, stride, aligned
):
    """Fill blocks and rows (start, stop) of `out`: as whole lines as far as they fit."""
    first, last = blocks
    lined = first + (last - first) // 4 * 4 if d % 4 == 0 else first
    columns = (first * d, lined * d)
    _fill_lines(
        codes, packing, stages, k, d, codebooks, shared, columns, rows, out, stride, aligned
    )
    rest = (codes, packing, stages, k, d, codebooks, shared, (lined, last), rows, out, stride)
    if (last - lined) * d <= BAND:
        if lined < last:
            _fill_short(*rest)
    else:
        _fill_blocks(*rest)


@compiled()
def decode_blocks(  # type: ignore[no-untyped-def]
    narrow, wide, packing, stages, k, d, codebooks, shared, blocks, rows, out, stride, aligned
):
    """Add up each block's stages, for blocks and rows (start, stop); False at an unknown code.

    codebooks: flat, (books, stages, k, d); codes of less than 8 bits have a centroid each. out:
    flat, rows `stride` apart; `aligned` says that its lines start at multiples of 64 bytes.
    """
    small = wide.shape[0] == 0
    step = max(BAND // d // 4 * 4, 4)  # whole lines, where d is a multiple of 4
    for first in range(blocks[0], blocks[1], step):
        band = (first, min(first + step, blocks[1]))
        if packing[0] >= 8 and (not small or k < 256):
            for line in range(first * stages, band[1] * stages):
                at = line * packing[2]
                if not _all_below(k, narrow, wide, small, at + rows[0], at + rows[1]):
                    return False
        codes = (packing, stages, k, d, codebooks, shared, band, rows, out, stride, aligned)
        if small:
            _fill_band(narrow, *codes)
        else:
            _fill_band(wide, *codes)
    fence()
    return True


@compiled()
def _look_up(codes, centroids, out, start, stop):  # type: ignore[no-untyped-def]
    for i in range(start, stop):
        out[np.uint64(i)] = centroids[np.uint64(code_at(codes, i))]


@compiled()
def decode_values(narrow, wide, start, stop, centroids, out):  # type: ignore[no-untyped-def]
    """out[start:stop] = centroids[codes[start:stop]]; False at an unknown code."""
    k = centroids.shape[0]
    small = wide.shape[0] == 0
    for first in range(start, stop, _CHUNK):
        last = min(first + _CHUNK, stop)
        if (not small or k < 256) and not _all_below(k, narrow, wide, small, first, last):
            return False
        if small:
            _look_up(narrow, centroids, out, first, last)
        else:
            _look_up(wide, centroids, out, first, last)
    return True

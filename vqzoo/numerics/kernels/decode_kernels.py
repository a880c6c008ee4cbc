"""The kernels of `decode`: codes as they are or out of a bit stream, centroids copied into place.

Codes come as (stream, bits, wide): int32 codes in `wide` where it is not empty, else a bit stream
(of 8 bits: uint8 codes as they are), of which a kernel unpacks what it is about to decode.
Inner kernels take either array as `codes`; they hold whole loops, since numba counts references to
arrays at every call.
"""

import numpy as np
from numba import njit

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
from vqzoo.numerics.kernels.unpack import unpack_range

BAND = 128  # values of a row that are written side by side: their codebooks stay in the caches
_ROWS = 32  # at a time: more would want more pages than the processor remembers the places of
_PITCH = BAND + LINE  # floats from row to row where they are put together: no power of two
_CHUNK = 4096  # scalar codes at a time


@njit(nogil=True, cache=True)
def _all_below(k, narrow, wide, small, start, stop):  # type: ignore[no-untyped-def]
    """Whether codes start to stop - 1, those of `narrow` if small, are in 0, ..., k - 1."""
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


@njit(nogil=True, cache=True)
def _quad(column, base, m, stages, k, d, shared):  # type: ignore[no-untyped-def]
    """Of four columns from `column` on: the place of their first code, and of their centroids."""
    block = column // d
    book = 0 if shared else block * stages * k * d
    return block * stages * m - base, book + column - block * d


@njit(nogil=True, cache=True)
def _fill_lines(  # type: ignore[no-untyped-def]
    codes, base, m, stages, k, d, codebooks, shared, columns, rows, out, stride, aligned
):
    """out of some rows and columns (start, stop), whole lines, d a multiple of 4.

    They are put together in the cache and written in bursts: a line that were put together in
    registers and written at once would be written in four parts.
    """
    room = np.empty(_ROWS * _PITCH, np.float32)
    for top in range(rows[0], rows[1], _ROWS):
        bottom = min(top + _ROWS, rows[1])
        for left in range(columns[0], columns[1], BAND):
            right = min(left + BAND, columns[1])
            for column in range(left, right, LINE):
                at0, from0 = _quad(column, base, m, stages, k, d, shared)
                at1, from1 = _quad(column + 4, base, m, stages, k, d, shared)
                at2, from2 = _quad(column + 8, base, m, stages, k, d, shared)
                at3, from3 = _quad(column + 12, base, m, stages, k, d, shared)
                for stage in range(stages):
                    on, book = stage * m, stage * k * d
                    to = column - left
                    for row in range(top, bottom):
                        value = gather_line(
                            codebooks,
                            book + from0 + code_at(codes, on + at0 + row) * d,
                            book + from1 + code_at(codes, on + at1 + row) * d,
                            book + from2 + code_at(codes, on + at2 + row) * d,
                            book + from3 + code_at(codes, on + at3 + row) * d,
                        )
                        if stage > 0:
                            value = add_lines(load_line(room, to), value)
                        store_line(value, room, to)
                        to += _PITCH
            for row in range(top, bottom):
                at, to = (row - top) * _PITCH, row * stride + left
                for column in range(0, right - left, LINE):
                    if aligned:
                        stream_line(load_line(room, at + column), out, to + column)
                    else:
                        store_line(load_line(room, at + column), out, to + column)


@njit(nogil=True, cache=True)
def _fill_blocks(codes, base, m, stages, k, d, codebooks, shared, blocks, rows, out, stride):  # type: ignore[no-untyped-def]
    """out of some blocks and rows (start, stop), for every d."""
    for top in range(rows[0], rows[1], _ROWS):
        bottom = min(top + _ROWS, rows[1])
        for block in range(blocks[0], blocks[1]):
            for stage in range(stages):
                at = (block * stages + stage) * m - base
                book = (stage if shared else block * stages + stage) * k * d
                to = top * stride + block * d
                for row in range(top, bottom):
                    source = book + code_at(codes, at + row) * d
                    if stage == 0:
                        for dim in range(d):
                            out[to + dim] = codebooks[source + dim]
                    else:
                        for dim in range(d):
                            out[to + dim] += codebooks[source + dim]
                    to += stride


@njit(nogil=True, cache=True)
def _fill_band(codes, base, m, stages, k, d, codebooks, shared, blocks, rows, out, stride, aligned):  # type: ignore[no-untyped-def]
    """out of some blocks and rows: whole lines where they fit."""
    first, last = blocks
    lined = first + (last - first) // 4 * 4 if d % 4 == 0 else first
    columns = (first * d, lined * d)
    _fill_lines(
        codes, base, m, stages, k, d, codebooks, shared, columns, rows, out, stride, aligned
    )
    _fill_blocks(codes, base, m, stages, k, d, codebooks, shared, (lined, last), rows, out, stride)


@njit(nogil=True, cache=True)
def decode_blocks(  # type: ignore[no-untyped-def]
    stream, bits, wide, m, stages, k, d, codebooks, shared, blocks, rows, out, stride, aligned
):
    """Sum up each block's stages, for blocks and rows (start, stop); False at an unknown code.

    The code of (block, stage, row) is number (block · stages + stage) · m + row; all rows where
    codes are to be unpacked. codebooks: flat, (books, stages, k, d). out: flat, rows `stride`
    apart, `aligned` where whole lines of it lie at multiples of 64 bytes.
    """
    given = wide.shape[0] > 0 or bits == 8
    step = max(BAND // d // 4 * 4, 4)  # whole lines, where d is a multiple of 4
    count = 0 if given else step * stages * m + 8
    room8 = np.empty(count if bits <= 8 else 0, np.uint8)
    room32 = np.empty(count if bits > 8 else 0, np.int32)
    for first in range(blocks[0], blocks[1], step):
        band = (first, min(first + step, blocks[1]))
        base = 0
        narrow, codes = stream, wide
        if not given:
            base = first * stages * m // 8 * 8
            unpack_range(stream, bits, base, band[1] * stages * m - base, room8, room32)
            narrow, codes = room8, room32
        small = codes.shape[0] == 0
        if not small or k < 1 << min(bits, 8):
            for line in range(first * stages, band[1] * stages):
                at = line * m - base
                if not _all_below(k, narrow, codes, small, at + rows[0], at + rows[1]):
                    return False
        if small:
            _fill_band(
                narrow, base, m, stages, k, d, codebooks, shared, band, rows, out, stride, aligned
            )
        else:
            _fill_band(
                codes, base, m, stages, k, d, codebooks, shared, band, rows, out, stride, aligned
            )
    fence()
    return True


@njit(nogil=True, cache=True)
def _look_up(codes, at, centroids, out, to, count):  # type: ignore[no-untyped-def]
    for i in range(count):
        out[np.uint64(to + i)] = centroids[np.uint64(code_at(codes, at + i))]


@njit(nogil=True, cache=True)
def decode_values(stream, bits, wide, start, stop, centroids, out):  # type: ignore[no-untyped-def]
    """out[start:stop] = centroids[codes], start a multiple of 8; False at an unknown code."""
    k = centroids.shape[0]
    given = wide.shape[0] > 0 or bits == 8
    room8 = np.empty(_CHUNK if not given and bits <= 8 else 0, np.uint8)
    room32 = np.empty(_CHUNK if not given and bits > 8 else 0, np.int32)
    for first in range(start, stop, _CHUNK):
        count = min(_CHUNK, stop - first)
        at = first if given else 0
        narrow, codes = stream, wide
        if not given:
            unpack_range(stream, bits, first, count, room8, room32)
            narrow, codes = room8, room32
        small = codes.shape[0] == 0
        if (not small or k < 1 << min(bits, 8)) and not _all_below(
            k, narrow, codes, small, at, at + count
        ):
            return False
        if small:
            _look_up(narrow, at, centroids, out, first, count)
        else:
            _look_up(codes, at, centroids, out, first, count)
    return True

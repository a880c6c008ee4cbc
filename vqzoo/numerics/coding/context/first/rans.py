"""Decoding rANS over the cells of a matrix: the inner loops.

The states are those of `coding/ans.py`: in [2^32, 2^64), refilled by words of 32 bits. Frequencies
sum to 2^16 in each cell. The code of column j belongs to lane j mod lanes.
"""

import numpy as np
from numpy.typing import NDArray

from vqzoo.numerics.arrays import Ints
from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.feedback.trellis import SEGMENT

HINT_BITS = 10
_LOW = np.uint64(1 << 32)
_SLOT = np.uint64(0xFFFF)
_START = np.uint32(0xFFFF)
_16 = np.uint64(16)
_32 = np.uint64(32)


def tables(freqs: Ints) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
    """What decoding looks up.

    Args:
        freqs: (cells, symbols), each row sums to 2^16 and no frequency is 2^16.

    Returns:
        (cells, symbols) uint32, frequency << 16 | start; (cells, 2^HINT_BITS) uint16, the symbol of
        the first slot in each bucket of slots.
    """
    cells = len(freqs)
    starts = np.cumsum(freqs, 1) - freqs
    entries = (freqs << 16 | starts).astype(np.uint32)
    edges = np.arange(1 << HINT_BITS) << (16 - HINT_BITS)
    hints = np.empty((cells, 1 << HINT_BITS), np.uint16)
    for cell in range(cells):
        hints[cell] = np.searchsorted(starts[cell], edges, side="right") - 1
    return entries, hints


@compiled()
def _find(x, entries, hints):  # type: ignore[no-untyped-def]
    """The symbol that a state holds."""
    slot = np.uint32(x & _SLOT)
    symbol = np.intp(hints[slot >> np.uint32(16 - HINT_BITS)])
    while slot - (entries[symbol] & _START) >= entries[symbol] >> np.uint32(16):
        symbol += 1
    return symbol


@compiled()
def _step(x, entry, words, at):  # type: ignore[no-untyped-def]
    """The state once its symbol has been removed, and the position of the next word to read."""
    wide = np.uint64(entry)
    x = (wide >> _16) * (x >> _16) + (x & _SLOT) - (wide & _SLOT)
    refilled = (x << _32) | np.uint64(words[at])
    short = x < _LOW
    return (refilled if short else x), at + np.intp(short)


@compiled()
def _next(x, cell, entries, hints, words, at):  # type: ignore[no-untyped-def]
    """The symbol that a state holds, the state without it, and the position of the next word."""
    symbol = _find(x, entries[cell], hints[cell])
    x, at = _step(x, entries[cell, symbol], words, at)
    return symbol, x, at


@compiled()
def _read_states(words, lanes):  # type: ignore[no-untyped-def]
    """The states that a chunk begins with, always four; those of absent lanes are at rest."""
    states = np.full(4, _LOW, np.uint64)
    for lane in range(lanes):
        states[lane] = np.uint64(words[2 * lane]) | np.uint64(words[2 * lane + 1]) << _32
    return states


@compiled()
def decode_rows(  # type: ignore[no-untyped-def]
    words, length, lanes, row_cells, column_cells, entries, hints, codes
):
    """Decode rows of codes that do not walk; return whether states and words ended together.

    Args:
        words: (length + n,) uint32, the chunk and n zeros.
        length: words of the chunk, at least two a lane.
        lanes: 1 or 4.
        row_cells, column_cells: (r,), (n,) int32.
        entries, hints: see `tables`.
        codes: (r, n) uint8 or int32, written.
    """
    rows, n = codes.shape
    states = _read_states(words, lanes)
    if states.min() < _LOW:
        return False
    x0, x1, x2, x3 = states
    whole = n - n % 4 if lanes == 4 else 0
    at = 2 * lanes
    for i in range(rows):
        if at > length:
            return False
        base = row_cells[i]
        for j in range(0, whole, 4):
            codes[i, j], x0, at = _next(x0, base + column_cells[j], entries, hints, words, at)
            codes[i, j + 1], x1, at = _next(
                x1, base + column_cells[j + 1], entries, hints, words, at
            )
            codes[i, j + 2], x2, at = _next(
                x2, base + column_cells[j + 2], entries, hints, words, at
            )
            codes[i, j + 3], x3, at = _next(
                x3, base + column_cells[j + 3], entries, hints, words, at
            )
        for j in range(whole, n):
            codes[i, j], x0, at = _next(x0, base + column_cells[j], entries, hints, words, at)
            if lanes == 4:
                x0, x1, x2, x3 = x1, x2, x3, x0
        if lanes == 4:
            for _ in range(n - whole, 4 if n > whole else 0):
                x0, x1, x2, x3 = x1, x2, x3, x0
    return at == length and x0 == x1 == x2 == x3 == _LOW


@compiled()
def decode_walks(  # type: ignore[no-untyped-def]
    words, length, lanes, row_cells, column_cells, parity, following, entries, hints, codes
):
    """Decode rows of codes that walk; see `decode_rows`.

    Args:
        parity: that of the code of level 0.
        following: transitions of the walk, which starts anew every `SEGMENT` rows. The lowest bit
            of a column's state is added to the cell.
    """
    rows, n = codes.shape
    states = _read_states(words, lanes)
    if states.min() < _LOW:
        return False
    x0, x1, x2, x3 = states
    walk = np.zeros(n, np.int32)
    whole = n - n % 4 if lanes == 4 else 0
    at = 2 * lanes
    for i in range(rows):
        if at > length:
            return False
        if i % SEGMENT == 0:
            walk[:] = 0
        base = row_cells[i]
        for j in range(0, whole, 4):
            w0, w1, w2, w3 = walk[j], walk[j + 1], walk[j + 2], walk[j + 3]
            s0, x0, at = _next(x0, base + column_cells[j] + (w0 & 1), entries, hints, words, at)
            s1, x1, at = _next(x1, base + column_cells[j + 1] + (w1 & 1), entries, hints, words, at)
            s2, x2, at = _next(x2, base + column_cells[j + 2] + (w2 & 1), entries, hints, words, at)
            s3, x3, at = _next(x3, base + column_cells[j + 3] + (w3 & 1), entries, hints, words, at)
            walk[j], walk[j + 1] = (
                following[w0, (s0 ^ parity) & 1],
                following[w1, (s1 ^ parity) & 1],
            )
            walk[j + 2] = following[w2, (s2 ^ parity) & 1]
            walk[j + 3] = following[w3, (s3 ^ parity) & 1]
            codes[i, j], codes[i, j + 1], codes[i, j + 2], codes[i, j + 3] = s0, s1, s2, s3
        for j in range(whole, n):
            symbol, x0, at = _next(
                x0, base + column_cells[j] + (walk[j] & 1), entries, hints, words, at
            )
            walk[j] = following[walk[j], (symbol ^ parity) & 1]
            codes[i, j] = symbol
            if lanes == 4:
                x0, x1, x2, x3 = x1, x2, x3, x0
        if lanes == 4:
            for _ in range(n - whole, 4 if n > whole else 0):
                x0, x1, x2, x3 = x1, x2, x3, x0
    return at == length and x0 == x1 == x2 == x3 == _LOW

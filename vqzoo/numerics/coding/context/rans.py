"""rANS over the cells of a matrix: the inner loops.

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
_WORD = np.uint64(0xFFFFFFFF)
_SLOT = np.uint64(0xFFFF)
_START = np.uint32(0xFFFF)
_16 = np.uint64(16)
_32 = np.uint64(32)
_48 = np.uint64(48)


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


@compiled(error_model="numpy")
def encode_rows(codes, states, row_cells, column_cells, freqs, starts, lanes, words):  # type: ignore[no-untyped-def]
    """Write rows to the end of `words`; return the position where they begin.

    Args:
        codes: (r, n) int32.
        states: (r, n) uint8, added to the cell.
        row_cells, column_cells: (r,), (n,) int32; a code's cell is their sum and its state.
        freqs, starts: (cells, symbols) uint64.
        lanes: 1 or 4.
        words: uint32, room for a word a code and two a lane.
    """
    lane_states = np.full(lanes, _LOW, np.uint64)
    at = words.shape[0]
    for i in range(codes.shape[0] - 1, -1, -1):
        for j in range(codes.shape[1] - 1, -1, -1):
            cell = row_cells[i] + column_cells[j] + states[i, j]
            f = freqs[cell, codes[i, j]]
            x = lane_states[j & (lanes - 1)]
            if x >= f << _48:
                at -= 1
                words[at] = np.uint32(x & _WORD)
                x >>= _32
            q = x // f
            lane_states[j & (lanes - 1)] = (q << _16) + (x - q * f) + starts[cell, codes[i, j]]
    for lane in range(lanes - 1, -1, -1):
        at -= 2
        words[at] = np.uint32(lane_states[lane] & _WORD)
        words[at + 1] = np.uint32(lane_states[lane] >> _32)
    return at


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
def decode_rows(  # type: ignore[no-untyped-def]
    words, length, lanes, row_cells, column_cells, walk, parity, following, entries, hints,
    narrow, wide,
):  # fmt: skip
    """Decode rows of codes; return whether states and words ended together.

    Args:
        words: (length + n,) uint32, the chunk and n zeros.
        length: words of the chunk, at least two a lane.
        lanes: 1 or 4.
        row_cells, column_cells: (r,), (n,) int32.
        walk: (n,) int32 for the states of the columns' walks, whose lowest bit is added to the
            cell; empty where codes do not walk.
        parity: that of the code of level 0.
        following: transitions of the walk, which starts anew every `SEGMENT` rows.
        entries, hints: see `tables`.
        narrow, wide: (r, n) uint8 and int32, one of them empty; the other is written.
    """
    small = narrow.shape[0] > 0
    rows, n = row_cells.shape[0], column_cells.shape[0]
    walks = walk.shape[0] > 0
    states = np.empty(lanes, np.uint64)
    for lane in range(lanes):
        states[lane] = np.uint64(words[2 * lane]) | np.uint64(words[2 * lane + 1]) << _32
        if states[lane] < _LOW:
            return False
    at = 2 * lanes
    for i in range(rows):
        if at > length:
            return False
        if i % SEGMENT == 0:
            walk[:] = 0
        base = row_cells[i]
        for j in range(n):
            cell = base + column_cells[j]
            if walks:
                cell += walk[j] & 1
            lane = j & (lanes - 1)
            symbol = _find(states[lane], entries[cell], hints[cell])
            states[lane], at = _step(states[lane], entries[cell, symbol], words, at)
            if walks:
                walk[j] = following[walk[j], (symbol ^ parity) & 1]
            if small:
                narrow[i, j] = symbol
            else:
                wide[i, j] = symbol
    for lane in range(lanes):
        if states[lane] != _LOW:
            return False
    return at == length

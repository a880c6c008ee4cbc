"""rANS over the cells of a matrix: the inner loops.

States are in [2^32, 2^64), refilled by words of 32 bits, as those of `coding/ans.py`. But a lane
codes pairs of neighbours in a row, and is refilled once a pair: with frequencies that sum to
2^scale, scale <= 15, two codes need at most 30 bits, so one word is enough. Pair p of a row belongs
to lane p mod lanes. Eight lanes keep a processor busy while each waits for its tables.
"""

import numpy as np
from numpy.typing import NDArray

from vqzoo.numerics.arrays import Bytes, Ints
from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.feedback.trellis import SEGMENT

LANES = 8
SYMBOLS = 256  # that tables have at most
_UNIT = 32  # places of tables are multiples of it
_LOW = np.uint64(1 << 32)
_WORD = np.uint64(0xFFFFFFFF)
_START = np.uint64(0xFFFF)
_1 = np.uint64(1)
_5 = np.uint64(5)
_16 = np.uint64(16)
_32 = np.uint64(32)


def lookups(freqs: Ints, scale: int) -> tuple[Bytes, NDArray[np.uint32]]:
    """What decoding looks up.

    Args:
        freqs: (tables, symbols), each row sums to 2^scale; at most `SYMBOLS` symbols.

    Returns:
        The symbol of each slot, uint8, and frequency << 16 | start of each symbol, uint32: both
        (tables · (2^scale + 32),), since tables a power of two apart would share a cache's sets.
    """
    tables, symbols = freqs.shape
    slots = np.zeros((tables, (1 << scale) + _UNIT), np.uint8)
    for table, row in enumerate(freqs):
        slots[table, : 1 << scale] = np.repeat(np.arange(symbols, dtype=np.uint8), row)
    entries = np.zeros(slots.shape, np.uint32)
    entries[:, :symbols] = freqs << 16 | (np.cumsum(freqs, 1) - freqs)
    return slots.reshape(-1), entries.reshape(-1)


def places(tables: Ints, scale: int) -> NDArray[np.uint16]:
    """Where tables begin in `lookups`, in units of 32; narrow, as each code's is read."""
    return (tables * ((1 << scale) // _UNIT + 1)).astype(np.uint16)


@compiled(error_model="numpy")
def encode(symbols, odd, rows, tables, freqs, starts, scale, lanes, words):  # type: ignore[no-untyped-def]
    """Write rows to the end of `words`; return the position where they begin.

    Args:
        symbols: (r, n) uint8.
        odd: (r, n) uint8, the parity of each state of a walk; zeros without walks.
        rows: (r,) int32, classes.
        tables: (row classes, parities, n) int64.
        freqs, starts: (tables, symbols) uint64.
        scale: of the frequencies.
        lanes: 1 or `LANES`.
        words: uint32, room for a word a pair and two a lane.
    """
    r, n = symbols.shape
    shift = np.uint64(scale)
    states = np.full(lanes, _LOW, np.uint64)
    at = words.shape[0]
    for i in range(r - 1, -1, -1):
        for j in range((n - 1) // 2 * 2, -1, -2):
            x = states[(j >> 1) & (lanes - 1)]
            table = tables[rows[i], odd[i, j], j]
            f, start = freqs[table, symbols[i, j]], starts[table, symbols[i, j]]
            g, behind, room = _1, np.uint64(0), shift
            if j + 1 < n:
                table = tables[rows[i], odd[i, j + 1], j + 1]
                g, behind = freqs[table, symbols[i, j + 1]], starts[table, symbols[i, j + 1]]
                room = shift + shift
            if x >> (np.uint64(64) - room) >= f * g:
                at -= 1
                words[at] = np.uint32(x & _WORD)
                x >>= _32
            if j + 1 < n:
                q = x // g
                x = (q << shift) + (x - q * g) + behind
            q = x // f
            states[(j >> 1) & (lanes - 1)] = (q << shift) + (x - q * f) + start
    for lane in range(lanes - 1, -1, -1):
        at -= 2
        words[at] = np.uint32(states[lane] & _WORD)
        words[at + 1] = np.uint32(states[lane] >> _32)
    return at


@compiled(inline="always")
def _next(x, place, scale, mask, slots, entries):  # type: ignore[no-untyped-def]
    """The symbol that a state holds, and the state without it; `place` is that of its table."""
    slot = x & mask
    begin = np.uint64(place) << _5
    symbol = slots[begin + slot]
    entry = np.uint64(entries[begin + np.uint64(symbol)])
    return symbol, (entry >> _16) * (x >> scale) + slot - (entry & _START)


@compiled(inline="always")
def _refill(x, words, at):  # type: ignore[no-untyped-def]
    """The state in its bounds, and the position of the next word."""
    refilled = (x << _32) | np.uint64(words[at])
    short = x < _LOW
    return (refilled if short else x), at + np.uint64(short)


@compiled()
def _whole_groups(states, words, at, place, scale, slots, entries, row):  # type: ignore[no-untyped-def]
    """Decode as many groups of two codes a lane, for eight lanes, as a row has; the next word."""
    mask = (_1 << scale) - _1
    x0, x1, x2, x3 = states[0], states[1], states[2], states[3]
    x4, x5, x6, x7 = states[4], states[5], states[6], states[7]
    for j in range(np.uint64(0), np.uint64(row.shape[0] - row.shape[0] % 16), _16):
        b, c, d = j + np.uint64(2), j + np.uint64(4), j + np.uint64(6)
        e, f, g, h = b + np.uint64(6), c + np.uint64(6), d + np.uint64(6), j + np.uint64(14)
        row[j], x0 = _next(x0, place[j], scale, mask, slots, entries)
        row[b], x1 = _next(x1, place[b], scale, mask, slots, entries)
        row[c], x2 = _next(x2, place[c], scale, mask, slots, entries)
        row[d], x3 = _next(x3, place[d], scale, mask, slots, entries)
        row[e], x4 = _next(x4, place[e], scale, mask, slots, entries)
        row[f], x5 = _next(x5, place[f], scale, mask, slots, entries)
        row[g], x6 = _next(x6, place[g], scale, mask, slots, entries)
        row[h], x7 = _next(x7, place[h], scale, mask, slots, entries)
        j, b, c, d = j + _1, b + _1, c + _1, d + _1
        e, f, g, h = e + _1, f + _1, g + _1, h + _1
        row[j], x0 = _next(x0, place[j], scale, mask, slots, entries)
        x0, at = _refill(x0, words, at)
        row[b], x1 = _next(x1, place[b], scale, mask, slots, entries)
        x1, at = _refill(x1, words, at)
        row[c], x2 = _next(x2, place[c], scale, mask, slots, entries)
        x2, at = _refill(x2, words, at)
        row[d], x3 = _next(x3, place[d], scale, mask, slots, entries)
        x3, at = _refill(x3, words, at)
        row[e], x4 = _next(x4, place[e], scale, mask, slots, entries)
        x4, at = _refill(x4, words, at)
        row[f], x5 = _next(x5, place[f], scale, mask, slots, entries)
        x5, at = _refill(x5, words, at)
        row[g], x6 = _next(x6, place[g], scale, mask, slots, entries)
        x6, at = _refill(x6, words, at)
        row[h], x7 = _next(x7, place[h], scale, mask, slots, entries)
        x7, at = _refill(x7, words, at)
    states[0], states[1], states[2], states[3] = x0, x1, x2, x3
    states[4], states[5], states[6], states[7] = x4, x5, x6, x7
    return at


@compiled()
def _by_state(even, changes, walk, place):  # type: ignore[no-untyped-def]
    """The place of each column's table; one for odd states differs from that for even ones."""
    for j in range(place.shape[0]):
        place[j] = even[j] ^ (changes[j] * np.uint16(walk[j] & np.uint8(1)))


@compiled()
def _walk_on(row, parity, walk):  # type: ignore[no-untyped-def]
    """The states behind a row: `trellis.NEXT` in operations on bits, which run in vectors."""
    for j in range(row.shape[0]):
        walk[j] = (
            (walk[j] >> np.uint8(1))
            ^ ((walk[j] & np.uint8(1)) * np.uint8(7))
            ^ (((row[j] ^ parity) & np.uint8(1)) << np.uint8(1))
        )


@compiled()
def decode(  # type: ignore[no-untyped-def]
    words, length, lanes, rows, places, parity, scale, slots, entries, symbols
):
    """Decode rows; return the position after the last word that they take, -1 if damaged.

    Args:
        words: (length + n,) uint32, the chunk and n zeros.
        length: words of the chunk, at least two a lane.
        lanes: 1 or `LANES`.
        rows: (r,) int32, classes.
        places: (row classes, parities, n) uint16, of each column's tables (see `places`). With two
            parities, codes walk.
        parity: that of the symbol of level 0.
        scale: of the frequencies, uint64.
        slots, entries: see `lookups`.
        symbols: (r, n) uint8, written.
    """
    r, n = symbols.shape
    states = np.empty(lanes, np.uint64)
    for lane in range(lanes):
        states[lane] = np.uint64(words[2 * lane]) | np.uint64(words[2 * lane + 1]) << _32
    if states.min() < _LOW:
        return -1
    walks = places.shape[1] == 2
    walk = np.zeros(n, np.uint8)
    changes = places[:, 0] ^ places[:, -1]
    place = np.empty(n, np.uint16)
    mask = (_1 << scale) - _1
    at = np.uint64(2 * lanes)
    for i in range(r):
        if at > np.uint64(length):
            return -1
        even, row = places[rows[i], 0], symbols[i]
        if walks:
            if i % SEGMENT == 0:
                walk[:] = 0
            _by_state(even, changes[rows[i]], walk, place)
        else:
            place = even
        start = 0
        if lanes == LANES:
            at = _whole_groups(states, words, at, place, scale, slots, entries, row)
            start = n - n % (2 * LANES)
        for j in range(start, n, 2):
            lane = (j >> 1) & (lanes - 1)
            row[j], x = _next(states[lane], place[j], scale, mask, slots, entries)
            if j + 1 < n:
                row[j + 1], x = _next(x, place[j + 1], scale, mask, slots, entries)
            states[lane], at = _refill(x, words, at)
        if walks:
            _walk_on(row, np.uint8(parity), walk)
    for lane in range(lanes):
        if states[lane] != _LOW:
            return -1
    return np.int64(at)

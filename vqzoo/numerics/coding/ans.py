"""Interleaved rANS streams; docs/packings.md specifies them byte by byte.

The range variant of asymmetric numeral systems (Duda 2013, arXiv 1311.2540), interleaved as by
Giesen 2014 (arXiv 1402.3392). With frequencies f that sum to M = 2^scale and their running sums b,
a state x in [2^32, 2^64) absorbs the symbol s by becoming (x div f)·M + x mod f + b, after writing
out its lowest 32 bits if it would exceed its bounds otherwise.

Head: scale, lanes, c and the order of the table, a byte each; the table, of frequencies - 1; then
the chunks. A chunk is a sequence of words, uint32 little-endian: the states of the lanes, the low
word of each first, then the words that the lanes read while decoding, in that order. Code i of a
chunk belongs to lane i mod lanes. All states end at 2^32, where the encoder began.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqzoo.numerics.arrays import Bytes, Codes, Ints, narrow_and_wide
from vqzoo.numerics.coding.chunks import (
    chunk_exponent,
    decode_chunks,
    encode_chunks,
    join,
    open_stream,
)
from vqzoo.numerics.coding.entropy import symbol_counts
from vqzoo.numerics.coding.frequencies import cost_bits, frequencies
from vqzoo.numerics.coding.symbol_table import best_order, read_table, table_bits, write_table
from vqzoo.numerics.compiled import compiled

_MIN_SCALE, _MAX_SCALE = 8, 24
_DIRECT = 16  # the largest scale with a table entry for each of the 2^scale slots
_LANES = 4
_LONG = 1_000_000  # codes, compared with which a table is small
_SMALL = 1 << 16  # bits of a stream below which the states of four lanes take too much of it
_LOW = np.uint64(1 << 32)  # states lie in [_LOW, _LOW << 32)
_32 = np.uint64(32)
_16 = np.uint64(16)
_40 = np.uint64(40)
_SYMBOL = np.uint64(0xFFFF)
_FREQUENCY = np.uint64(0xFFFFFF)


@compiled(error_model="numpy")
def _encode(codes, freqs, starts, scale, lanes, words):  # type: ignore[no-untyped-def]
    """Write a chunk to the end of `words`; return the position where it begins."""
    states = np.full(lanes, _LOW, np.uint64)
    shift = np.uint64(scale)
    headroom = np.uint64(64 - scale)
    at = words.shape[0]
    for i in range(codes.shape[0] - 1, -1, -1):
        lane = i & (lanes - 1)
        code = codes[i]
        f = freqs[code]
        x = states[lane]
        if x >= f << headroom:
            at -= 1
            words[at] = np.uint32(x & np.uint64(0xFFFFFFFF))
            x >>= _32
        q = x // f
        states[lane] = (q << shift) + (x - q * f) + starts[code]
    for lane in range(lanes - 1, -1, -1):
        at -= 2
        words[at] = np.uint32(states[lane] & np.uint64(0xFFFFFFFF))
        words[at + 1] = np.uint32(states[lane] >> _32)
    return at


@compiled()
def _step(x, entry, scale, words, at):  # type: ignore[no-untyped-def]
    """The state once its symbol has been removed, and the position of the next word to read."""
    x = ((entry >> _16) & _FREQUENCY) * (x >> scale) + (entry >> _40)
    refilled = (x << _32) | np.uint64(words[at])
    short = x < _LOW
    return (refilled if short else x), at + np.intp(short)


@compiled()
def _four_lanes(words, at, table, scale, states, narrow, wide):  # type: ignore[no-untyped-def]
    """Decode with a table of symbol | frequency << 16 | (slot - b) << 40, for as long as four more
    words are certain; return the number of codes and the position of the next word."""
    small = narrow.shape[0] > 0
    count = narrow.shape[0] + wide.shape[0]
    mask = np.uint64((1 << scale) - 1)
    shift = np.uint64(scale)
    a, b, c, d = states[0], states[1], states[2], states[3]
    i = 0
    while i + 4 <= count and at + 4 <= words.shape[0]:
        of_a, of_b, of_c, of_d = table[a & mask], table[b & mask], table[c & mask], table[d & mask]
        a, at = _step(a, of_a, shift, words, at)
        b, at = _step(b, of_b, shift, words, at)
        c, at = _step(c, of_c, shift, words, at)
        d, at = _step(d, of_d, shift, words, at)
        if small:
            narrow[i] = of_a & _SYMBOL
            narrow[i + 1] = of_b & _SYMBOL
            narrow[i + 2] = of_c & _SYMBOL
            narrow[i + 3] = of_d & _SYMBOL
        else:
            wide[i] = of_a & _SYMBOL
            wide[i + 1] = of_b & _SYMBOL
            wide[i + 2] = of_c & _SYMBOL
            wide[i + 3] = of_d & _SYMBOL
        i += 4
    states[0], states[1], states[2], states[3] = a, b, c, d
    return i, at


@compiled()
def _search(  # type: ignore[no-untyped-def]
    words, at, i, symbols, freqs, starts, ranks, scale, states, narrow, wide
):
    """Decode from code i on by a search in `starts`, between the ranks of the slot's bucket.

    Returns whether states and words ended together.
    """
    small = narrow.shape[0] > 0
    count = narrow.shape[0] + wide.shape[0]
    mask = np.uint64((1 << scale) - 1)
    shift = np.uint64(scale)
    width = np.uint64(0)
    while (ranks.shape[0] - 1) << width < 1 << scale:
        width += np.uint64(1)
    lanes = states.shape[0]
    while i < count:
        lane = i & (lanes - 1)
        x = states[lane]
        slot = x & mask
        bucket = slot >> width
        low, above = int(ranks[bucket]), int(ranks[bucket + np.uint64(1)]) + 1
        while above - low > 1:
            middle = (low + above) >> 1
            if starts[middle] <= slot:
                low = middle
            else:
                above = middle
        if small:
            narrow[i] = symbols[low]
        else:
            wide[i] = symbols[low]
        x = freqs[low] * (x >> shift) + slot - starts[low]
        if x < _LOW:
            if at >= words.shape[0]:
                return False
            x = (x << _32) | np.uint64(words[at])
            at += 1
        states[lane] = x
        i += 1
    for lane in range(lanes):
        if states[lane] != _LOW:
            return False
    return at == words.shape[0]


def pack(codes: Tensor, cardinality: int) -> Tensor:
    """Pack codes as a rANS stream.

    Args:
        codes: any shape, any integer dtype; flattened.
        cardinality: number of symbols, 1 to 65,536.

    Returns:
        (bytes,) uint8; empty for no codes.

    Raises:
        ValueError: a code is not in 0 ... cardinality - 1.
    """
    counts = symbol_counts(codes, cardinality)
    symbols = np.flatnonzero(counts)
    if not len(symbols):
        return torch.empty(0, dtype=torch.uint8)
    counts = counts[symbols]
    scale = _best_scale(symbols, counts)
    used = frequencies(counts, scale)
    bits = cost_bits(counts, used, scale)
    lanes = _LANES if bits >= _SMALL else 1
    c = chunk_exponent(codes.numel(), bits)
    order = best_order(symbols, used - 1)
    head = [
        np.array([scale, lanes, c, order], np.uint8),
        write_table(symbols, used - 1, order),
    ]
    if len(symbols) == 1:
        return join(head, [])
    freqs, starts = np.zeros(cardinality, np.uint64), np.zeros(cardinality, np.uint64)
    freqs[symbols], starts[symbols] = used, np.cumsum(used) - used

    def encode(chunk: Codes) -> Bytes:
        words = np.empty(len(chunk) + 2 * lanes, np.uint32)
        at = _encode(chunk, freqs, starts, scale, lanes, words)
        return words[at:].astype("<u4").view(np.uint8)

    return encode_chunks(head, codes, c, encode)


def unpack(stream: Tensor, cardinality: int, count: int) -> Tensor:
    """Unpack the `count` codes of an untrusted stream.

    Memory and time are those of `count` codes, which the caller must bound: the stream does not.

    Returns:
        (count,), uint8 where cardinality <= 256, else int32; below `cardinality`.

    Raises:
        ValueError: `pack` would not write this stream: its table is malformed, its frequencies have
            another sum, or its chunks end early, late or in other states.
    """
    data, codes = open_stream(stream, cardinality, count, 4)
    if count == 0:
        return codes
    scale, lanes, c, order = (int(byte) for byte in data[:4])
    if not _MIN_SCALE <= scale <= _max_scale(count):
        raise ValueError(f"the scale is {scale}, not {_MIN_SCALE} to {_max_scale(count)}")
    if lanes not in (1, _LANES):
        raise ValueError(f"there are {lanes} lanes, not 1 or {_LANES}")
    symbols, numbers, size = read_table(data[4:], order, cardinality)
    freqs = numbers + 1
    if int(freqs.sum()) != 1 << scale:
        raise ValueError(f"the frequencies do not sum to 2^{scale}")
    if len(symbols) == 1:
        if len(data) != 4 + size:
            raise ValueError("a stream of one symbol has chunks")
        return codes.fill_(int(symbols[0]))
    starts = np.cumsum(freqs) - freqs
    direct = lanes == _LANES and scale <= _DIRECT
    table = _slots(symbols, freqs, starts) if direct else np.empty(0, np.uint64)
    ranks = _ranks(starts, scale)
    code = symbols.astype(np.uint16), freqs.astype(np.uint32), starts.astype(np.uint32), ranks
    narrow, wide = narrow_and_wide(codes)

    def decode(chunk: Bytes, part: slice) -> bool:
        if len(chunk) % 4 or len(chunk) < 8 * lanes:
            return False
        words = np.frombuffer(chunk.tobytes(), "<u4").astype(np.uint32)
        halves = words[: 2 * lanes].astype(np.uint64)
        states = halves[::2] | halves[1::2] << _32
        out = narrow[part], wide[part]
        i, at = 0, 2 * lanes
        if int(states.min()) < _LOW:
            return False
        if direct:
            i, at = _four_lanes(words, at, table, scale, states, *out)
        return bool(_search(words, at, i, *code, scale, states, *out))

    decode_chunks(data, 4 + size, count, c, decode)
    return codes


def _max_scale(count: int) -> int:
    """The largest scale of a stream: frequencies finer than one code are of no use."""
    return min(_MAX_SCALE, max(_MIN_SCALE, (count - 1).bit_length()))


def _best_scale(symbols: Ints, counts: Ints) -> int:
    """The least scale whose stream, table included, is within 0.1% of the shortest; for a million
    codes or more, only among scales that cost at most 0.4% more than the best without the table."""
    low = max(_MIN_SCALE, (len(symbols) - 1).bit_length())
    count = int(counts.sum())
    costs, sizes = {}, {}
    for scale in range(low, _max_scale(count) + 1):
        freqs = frequencies(counts, scale)
        order = best_order(symbols, freqs - 1)
        costs[scale] = cost_bits(counts, freqs, scale)
        sizes[scale] = costs[scale] + table_bits(symbols, freqs - 1, order)
    if count >= _LONG:
        near = 1.004 * min(costs.values())
        sizes = {scale: size for scale, size in sizes.items() if costs[scale] <= near}
    return next(scale for scale, size in sizes.items() if size <= 1.001 * min(sizes.values()))


def _slots(symbols: Ints, freqs: Ints, starts: Ints) -> NDArray[np.uint64]:
    """The table's entry for each slot: symbol | frequency << 16 | (slot - start) << 40."""
    bias = np.arange(int(freqs.sum())) - np.repeat(starts, freqs)
    entries = (symbols | freqs << 16).astype(np.uint64)
    return np.repeat(entries, freqs) | bias.astype(np.uint64) << _40


def _ranks(starts: Ints, scale: int) -> Codes:
    """The rank of the symbol at the start of each of 2^16 buckets of slots, then the last rank; a
    single bucket up to the scale at which slots have a table."""
    buckets = 1 << 16 if scale > _DIRECT else 1
    edges = np.arange(buckets) << (scale - buckets.bit_length() + 1)
    ranks = np.searchsorted(starts, edges, side="right") - 1
    return np.append(ranks, len(starts) - 1).astype(np.int32)

"""Canonical Huffman streams; docs/packings.md specifies them byte by byte.

Head: c and the order of the table, a byte each; the table, of code lengths; then the chunks. In a
chunk, codes follow each other with their first bit highest: bit b of a chunk is bit 7 - b mod 8 of
byte b div 8.
"""

import numpy as np
import torch
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
from vqzoo.numerics.coding.prefix_code import canonical_starts, code_lengths
from vqzoo.numerics.coding.symbol_table import best_order, read_table, write_table
from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.codegen import load_word

_LOOKUP = 12  # bits that index the lookup table
_HELD = 3  # symbols that fit an entry
_LOOKUPS = 4  # of 12 bits, in the 57 bits that a word has at least, whichever bit it begins at
_SLACK = _HELD * _LOOKUPS  # codes that one round may write


@compiled()
def _encode(codes, words, lengths, data):  # type: ignore[no-untyped-def]
    held = np.uint64(0)
    filled = 0
    at = 0
    for i in range(codes.shape[0]):
        length = lengths[codes[i]]
        held = (held << np.uint64(length)) | words[codes[i]]
        filled += length
        while filled >= 8:
            filled -= 8
            data[at] = np.uint8((held >> np.uint64(filled)) & np.uint64(255))
            at += 1
    if filled > 0:
        data[at] = np.uint8((held << np.uint64(8 - filled)) & np.uint64(255))


@compiled()
def _rank(starts, high, low, above):  # type: ignore[no-untyped-def]
    """The last of the codes from low to above - 1 that is <= the 32 bits `high`; the first is."""
    while above - low > 1:
        middle = (low + above) >> 1
        if starts[middle] <= high:
            low = middle
        else:
            above = middle
    return low


@compiled()
def _fill(symbols, starts, lengths, table):  # type: ignore[no-untyped-def]
    """Write the table's entry for each 12 bits: up to three symbols of 16 bits, their number << 48,
    their total of bits << 52.

    Where the first code takes more than 12 bits, as do all codes after it, only that code's rank.
    """
    for prefix in range(table.shape[0]):
        entry = np.uint64(0)
        used = 0
        held = 0
        while held < _HELD:
            high = (prefix << (32 - _LOOKUP + used)) & 0xFFFFFFFF
            rank = _rank(starts, high, 0, starts.shape[0])
            if used + lengths[rank] > _LOOKUP:
                if held == 0:
                    entry = np.uint64(rank)
                break
            entry |= np.uint64(symbols[rank]) << np.uint64(16 * held)
            used += lengths[rank]
            held += 1
        table[prefix] = entry | np.uint64(held) << np.uint64(48) | np.uint64(used) << np.uint64(52)


@compiled()
def _careful(data, at, symbols, starts, lengths):  # type: ignore[no-untyped-def]
    """The symbol at bit `at` and the position after it; zeros follow the data."""
    word = np.int64(0)
    for byte in range(at >> 3, (at >> 3) + 5):
        word = (word << 8) | (np.int64(data[byte]) if byte < data.shape[0] else 0)
    rank = _rank(starts, (word >> (8 - (at & 7))) & 0xFFFFFFFF, 0, starts.shape[0])
    return symbols[rank], at + lengths[rank]


@compiled()
def _decode(data, table, symbols, starts, lengths, narrow, wide):  # type: ignore[no-untyped-def]
    """Decode a chunk; return whether it ends where its codes do, padded with zero bits."""
    small = narrow.shape[0] > 0
    count = narrow.shape[0] + wide.shape[0]
    size = data.shape[0]
    i = 0
    at = 0
    while i + _SLACK <= count and (at >> 3) + 8 <= size:
        word = _swapped(load_word(data, at >> 3)) << np.uint64(at & 7)
        for turn in range(_LOOKUPS):
            entry = table[word >> np.uint64(64 - _LOOKUP)]
            held = np.intp((entry >> np.uint64(48)) & np.uint64(15))
            if held == 0:
                if turn == 0:
                    high = np.int64(word >> np.uint64(32))
                    after = (high >> (32 - _LOOKUP)) + 1
                    above = starts.shape[0]
                    if after < table.shape[0]:
                        above = np.int64(table[after]) + 1
                    rank = _rank(starts, high, np.int64(entry), above)
                    if small:
                        narrow[i] = symbols[rank]
                    else:
                        wide[i] = symbols[rank]
                    at += lengths[rank]
                    i += 1
                break
            for j in range(_HELD):
                symbol = (entry >> np.uint64(16 * j)) & np.uint64(0xFFFF)
                if small:
                    narrow[i + j] = symbol
                else:
                    wide[i + j] = symbol
            used = entry >> np.uint64(52)
            word <<= used
            at += np.intp(used)
            i += held
    while i < count and at <= 8 * size:
        symbol, at = _careful(data, at, symbols, starts, lengths)
        if small:
            narrow[i] = symbol
        else:
            wide[i] = symbol
        i += 1
    if i < count or (at + 7) >> 3 != size:
        return False
    return at & 7 == 0 or (int(data[size - 1]) << (at & 7)) & 255 == 0


@compiled()
def _swapped(word):  # type: ignore[no-untyped-def]
    """A uint64 with its bytes in reverse order; LLVM compiles this to one instruction."""
    out = np.uint64(0)
    for byte in range(8):
        out |= ((word >> np.uint64(8 * byte)) & np.uint64(255)) << np.uint64(56 - 8 * byte)
    return out


def pack(codes: Tensor, cardinality: int) -> Tensor:
    """Pack codes as a Huffman stream.

    The prefix code is optimal among those of at most 32 bits a symbol. For fewer than 14.9 million
    codes (F(36) - 1, since Fibonacci numbers are the steepest counts) no prefix code is shorter.

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
    lengths = code_lengths(counts[symbols])
    numbers = _zigzag(np.diff(lengths, prepend=0))
    order = best_order(symbols, numbers)
    c = chunk_exponent(codes.numel(), float(np.sum(counts[symbols] * lengths)))
    head = [np.array([c, order], np.uint8), write_table(symbols, numbers, order)]
    if len(symbols) == 1:
        return join(head, [])
    ranked, starts = canonical_starts(lengths)
    words, widths = np.zeros(cardinality, np.uint64), np.zeros(cardinality, np.int64)
    words[symbols[ranked]] = starts >> (32 - lengths[ranked])
    widths[symbols] = lengths

    def encode(chunk: Codes) -> Bytes:
        bits = int(np.bincount(chunk, minlength=cardinality) @ widths)
        data = np.empty((bits + 7) // 8, np.uint8)
        _encode(chunk, words, widths, data)
        return data

    return encode_chunks(head, codes, c, encode)


def unpack(stream: Tensor, cardinality: int, count: int) -> Tensor:
    """Unpack the `count` codes of an untrusted stream.

    Memory and time are those of `count` codes, which the caller must bound: the stream does not.

    Returns:
        (count,), uint8 where cardinality <= 256, else int32; below `cardinality`.

    Raises:
        ValueError: `pack` would not write this stream: its table is malformed, its lengths are not
            those of a complete prefix code, or its chunks end early or late.
    """
    data, codes = open_stream(stream, cardinality, count, 2)
    if count == 0:
        return codes
    symbols, numbers, size = read_table(data[2:], int(data[1]), cardinality)
    lengths = np.cumsum((numbers >> 1) ^ -(numbers & 1))
    if len(symbols) == 1:
        if lengths[0] != 0 or len(data) != 2 + size:
            raise ValueError("a stream of one symbol has a length or chunks")
        return codes.fill_(int(symbols[0]))
    ranked, starts = canonical_starts(lengths)
    code = (
        symbols[ranked].astype(np.uint16),
        starts.astype(np.uint32),
        lengths[ranked].astype(np.uint8),
    )
    table = np.empty(1 << _LOOKUP, np.uint64)
    _fill(*code, table)
    narrow, wide = narrow_and_wide(codes)

    def decode(chunk: Bytes, part: slice) -> bool:
        return bool(_decode(chunk, table, *code, narrow[part], wide[part]))

    decode_chunks(data, 2 + size, count, int(data[0]), decode)
    return codes


def _zigzag(numbers: Ints) -> Ints:
    """Map 0, -1, 1, -2, ... to 0, 1, 2, 3, ..."""
    return (numbers << 1) ^ (numbers >> 63)

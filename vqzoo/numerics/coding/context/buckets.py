"""Large magnitudes as a bucket and bits of no particular distribution.

The magnitude |code - center| is its own bucket below 16. From there on, each octave 2^e to 2^(e+1)
has four parts, and a part one bucket for even and one for odd magnitudes, e - 3 bits saying which
of them: t = 16 + 8 (e - 4) + 2 (the two bits behind the first) + the last bit. So at most 223
symbols stand for 65,536 codes, densities are nearly constant within a bucket, and the symbol t of a
code is odd where its magnitude is, as the walk of a trellis needs.
"""

import numpy as np
from numpy.typing import NDArray

from vqzoo.numerics.arrays import Codes, Ints
from vqzoo.numerics.compiled import compiled

_EXACT = 16
_32 = np.uint64(32)


@compiled()
def bucket(magnitude):  # type: ignore[no-untyped-def]
    """The bucket t of a magnitude."""
    if magnitude < _EXACT:
        return magnitude
    e = 4
    while magnitude >> (e + 1):
        e += 1
    return _EXACT + 8 * (e - 4) + 2 * ((magnitude >> (e - 2)) & 3) + (magnitude & 1)


@compiled()
def reach(magnitude):  # type: ignore[no-untyped-def]
    """The largest bucket of magnitudes up to this one."""
    return bucket(magnitude) if magnitude < _EXACT else bucket(magnitude) | 1


@compiled()
def to_symbols(codes, center, symbols):  # type: ignore[no-untyped-def]
    """Symbols of codes (r, n), `center` having the symbol reach(center): (r, n) uint8."""
    zero = reach(center)
    for i in range(codes.shape[0]):
        for j in range(codes.shape[1]):
            offset = codes[i, j] - center
            t = bucket(abs(offset))
            symbols[i, j] = zero + t if offset > 0 else zero - t


@compiled()
def put_rests(codes, center, words):  # type: ignore[no-untyped-def]
    """Write what buckets leave open to `words`, zeros; how many words that takes."""
    at = 0
    for i in range(codes.shape[0]):
        for j in range(codes.shape[1]):
            magnitude = abs(codes[i, j] - center)
            if magnitude < _EXACT:
                continue
            bits = 1
            while magnitude >> (bits + 4):
                bits += 1
            rest = np.uint64((magnitude >> 1) & ((1 << bits) - 1)) << np.uint64(at & 31)
            words[at >> 5] |= np.uint32(rest & np.uint64(0xFFFFFFFF))
            words[(at >> 5) + 1] |= np.uint32(rest >> _32)
            at += bits
    return (at + 31) >> 5


@compiled()
def from_symbols(symbols, words, at, length, bases, steps, bits, size, codes):  # type: ignore[no-untyped-def]
    """Codes of symbols (r, n) uint8 and the words from `at` on; whether they are below `size`, and
    the words are as many.

    Args:
        words: (length + n + 2,) uint32, ending with zeros.
        bases, steps, bits: see `levels`.
        codes: (r, n) uint8 or int32, written.
    """
    place = np.uint64(32 * at)
    end = np.uint64(32 * length)
    signs = 0
    for i in range(symbols.shape[0]):
        if place > end:
            return False
        for j in range(symbols.shape[1]):
            s = symbols[i, j]
            word = place >> np.uint64(5)
            window = np.uint64(words[word]) | np.uint64(words[word + np.uint64(1)]) << _32
            rest = (window >> (place & np.uint64(31))) & ((np.uint64(1) << bits[s]) - np.uint64(1))
            code = bases[s] + steps[s] * np.int64(rest)
            signs |= code | (size - 1 - code)
            codes[i, j] = code
            place += bits[s]
    used = (place + np.uint64(31)) >> np.uint64(5)
    padding = np.uint64(0)
    if place & np.uint64(31):
        padding = np.uint64(words[used - np.uint64(1)]) >> (place & np.uint64(31))
    return used == np.uint64(length) and padding == np.uint64(0) and signs >= 0


def levels(center: int, size: int) -> tuple[Codes, Codes, NDArray[np.uint64]]:
    """What each symbol of codes 0 ... size - 1 stands for: code = base + step · rest.

    Returns:
        Bases and steps, (symbols,) int32, and the bits of the rest, (symbols,) uint64.
    """
    below, above = reach(center), reach(size - 1 - center)
    offsets = np.arange(-below, above + 1)
    t = np.abs(offsets)
    octave, place = np.divmod(np.maximum(t - _EXACT, 0), 8)
    large = t >= _EXACT
    magnitudes = np.where(large, (16 << octave) + (place // 2 << (octave + 2)) + place % 2, t)
    signs = np.where(offsets < 0, -1, 1)
    bases = center + signs * magnitudes
    bits = np.where(large, octave + 1, 0)
    return bases.astype(np.int32), (2 * signs).astype(np.int32), bits.astype(np.uint64)


def rest_bits(counts: Ints, center: int) -> int:
    """Bits that buckets leave open, for how often each code occurs: (size,) int64."""
    magnitudes = np.abs(np.arange(len(counts)) - center)
    exponents = np.frexp(np.maximum(magnitudes, 1))[1] - 1
    return int((counts * np.where(magnitudes < _EXACT, 0, exponents - 3)).sum())

"""Unpack fixed-width codes from a range of a bit stream."""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.codegen import load_word


@compiled()
def _unpack_nibbles(stream, start, count, codes):  # type: ignore[no-untyped-def]
    """Unpack four-bit codes from byte `start` on; unsigned indices let the compiler vectorize."""
    for pair in range(count // 2):
        byte = stream[np.uint64(start + pair)]
        codes[np.uint64(2 * pair)] = byte & np.uint8(15)
        codes[np.uint64(2 * pair + 1)] = byte >> np.uint8(4)
    if count % 2 == 1:
        codes[count - 1] = stream[start + count // 2] & np.uint8(15)


@compiled()
def unpack_range(stream, bits, start, count, narrow, wide):  # type: ignore[no-untyped-def]
    """Unpack codes start to start + count - 1 of a stream into whichever of narrow (uint8) and
    wide (int32) is not empty. `start` is a multiple of 8, so that codes begin at a byte."""
    if bits == 4:
        _unpack_nibbles(stream, start // 2, count, narrow)
        return
    mask = np.uint64((1 << bits) - 1)
    small = narrow.shape[0] > 0
    half = 4 * bits >> 3
    rest = np.uint64(4 * bits & 7)
    at = start * bits >> 3
    i = 0
    # Eight codes are `bits` bytes; two overlapping words hold four each.
    while i + 8 <= count and at + half + 8 <= stream.shape[0]:
        low = load_word(stream, at)
        high = load_word(stream, at + half) >> rest
        for lane in range(4):
            shift = np.uint64(bits * lane)
            if small:
                narrow[i + lane] = (low >> shift) & mask
                narrow[i + 4 + lane] = (high >> shift) & mask
            else:
                wide[i + lane] = (low >> shift) & mask
                wide[i + 4 + lane] = (high >> shift) & mask
        i += 8
        at += bits
    held = np.uint64(0)
    filled = 0
    while i < count:
        while filled < bits:
            held |= np.uint64(stream[at]) << np.uint64(filled)
            at += 1
            filled += 8
        if small:
            narrow[i] = held & mask
        else:
            wide[i] = held & mask
        held >>= np.uint64(bits)
        filled -= bits
        i += 1

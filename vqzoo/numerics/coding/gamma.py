"""Streams of bits, the least significant of each byte first, and Elias's gamma code.

Bit b of a stream is bit b mod 8 of byte b div 8. `gamma(v)` of v >= 1 (Elias 1975) is z zero bits,
a one, and the z lowest bits of v, the least significant first, with z = floor(log2 v). Digits below
a base are written eight at a time, as the bits of the number Σ digit_i · base^i.
"""

import numpy as np

from vqzoo.numerics.compiled import compiled

MAX_ZEROS = 24  # of a gamma code, whose numbers go up to 2^25
GROUP = 8  # digits that are written as one number


@compiled()
def put(stream, at, value, bits):  # type: ignore[no-untyped-def]
    """Write the lowest `bits` bits of a value from bit `at` on; return the position after them."""
    for b in range(bits):
        stream[(at + b) >> 3] |= np.uint8(((value >> b) & 1) << ((at + b) & 7))
    return at + bits


@compiled()
def put_gamma(stream, at, value):  # type: ignore[no-untyped-def]
    """Write gamma(value); return the position after it."""
    zeros = 0
    while value >> (zeros + 1):
        zeros += 1
    at = put(stream, at + zeros, 1, 1)
    return put(stream, at, value, zeros)


@compiled()
def take(stream, at, bits):  # type: ignore[no-untyped-def]
    """`bits` bits and the position after them, which is -1 if the stream ends before."""
    if at < 0 or at + bits > 8 * stream.shape[0]:
        return 0, -1
    value = 0
    for b in range(bits):
        value |= ((int(stream[(at + b) >> 3]) >> ((at + b) & 7)) & 1) << b
    return value, at + bits


@compiled()
def take_gamma(stream, at):  # type: ignore[no-untyped-def]
    """The number of a gamma code and the position after it, which is -1 if there is none."""
    for zeros in range(MAX_ZEROS + 1):
        one, at = take(stream, at, 1)
        if at < 0:
            break
        if one:
            low, at = take(stream, at, zeros)
            return (1 << zeros) | low, at
    return 0, -1


@compiled()
def _width(base, size):  # type: ignore[no-untyped-def]
    """Bits of the largest number of `size` digits."""
    bits = 0
    while (base**size - 1) >> bits:
        bits += 1
    return bits


@compiled()
def put_digits(stream, at, base, digits):  # type: ignore[no-untyped-def]
    """Write digits below `base`, 2 to 16; return the position after them."""
    for start in range(0, digits.shape[0], GROUP):
        size = min(GROUP, digits.shape[0] - start)
        value = 0
        for i in range(size - 1, -1, -1):
            value = value * base + digits[start + i]
        at = put(stream, at, value, _width(base, size))
    return at


@compiled()
def take_digits(stream, at, base, digits):  # type: ignore[no-untyped-def]
    """Read digits below `base` into `digits`; the position after them, -1 if there are none."""
    for start in range(0, digits.shape[0], GROUP):
        size = min(GROUP, digits.shape[0] - start)
        value, at = take(stream, at, _width(base, size))
        if at < 0 or value >= base**size:
            return -1
        for i in range(size):
            digits[start + i] = value % base
            value //= base
    return at

"""Symbols with a number each in few bits: the tables of entropy-coded streams.

Bits are in the order of `bits`: bit b of the table is bit b mod 8 of byte b div 8, the least
significant first. `gamma(v)` of v >= 1 (Elias 1975) is z zero bits, a one, and the z lowest bits of
v, with z = floor(log2 v). A table is gamma(number of symbols), then for each symbol in ascending
order gamma(1 + symbols skipped since the last one), gamma(1 + (number >> order)) and the `order`
lowest bits of the number; zero bits fill the last byte.
"""

import numpy as np

from vqzoo.numerics.arrays import Bytes, Ints
from vqzoo.numerics.coding.gamma import put, put_gamma, take, take_gamma
from vqzoo.numerics.compiled import compiled

MAX_ORDER = 24
_NUMBERS = 1 << 24


@compiled()
def _write(symbols, numbers, order, stream):  # type: ignore[no-untyped-def]
    at = put_gamma(stream, 0, symbols.shape[0])
    before = -1
    for i in range(symbols.shape[0]):
        at = put_gamma(stream, at, symbols[i] - before)
        at = put_gamma(stream, at, 1 + (numbers[i] >> order))
        at = put(stream, at, numbers[i], order)
        before = symbols[i]
    return at


@compiled()
def _read(stream, at, order, cardinality, symbols, numbers):  # type: ignore[no-untyped-def]
    """The position after the table; -1 if the table ends early, -2 if a number is out of range."""
    symbol = -1
    for i in range(symbols.shape[0]):
        gap, at = take_gamma(stream, at)
        high, at = take_gamma(stream, at)
        low, at = take(stream, at, order)
        if at < 0:
            return -1
        symbol += gap
        number = ((high - 1) << order) | low
        if symbol >= cardinality or number >= _NUMBERS:
            return -2
        symbols[i] = symbol
        numbers[i] = number
    return at


def table_bits(symbols: Ints, numbers: Ints, order: int) -> int:
    """The length of a table in bits."""
    coded = [np.array([len(symbols)]), np.diff(symbols, prepend=-1), 1 + (numbers >> order)]
    zeros = np.frexp(np.concatenate(coded).astype(np.float64))[1] - 1
    return int(np.sum(2 * zeros + 1)) + order * len(symbols)


def best_order(symbols: Ints, numbers: Ints) -> int:
    """The least order with which the table is shortest."""
    return min(range(MAX_ORDER + 1), key=lambda order: table_bits(symbols, numbers, order))


def write_table(symbols: Ints, numbers: Ints, order: int) -> Bytes:
    """Write a table as bytes.

    Args:
        symbols: (n,), ascending, below 65,536; n >= 1.
        numbers: (n,), 0 to 2^24 - 1.
        order: 0 to 24, best small for small numbers.
    """
    stream = np.zeros((table_bits(symbols, numbers, order) + 7) // 8, np.uint8)
    _write(symbols, numbers, order, stream)
    return stream


def read_table(stream: Bytes, order: int, cardinality: int) -> tuple[Ints, Ints, int]:
    """Read a table from the beginning of an untrusted stream.

    Returns:
        Symbols (n,), numbers (n,), and the number of bytes that the table takes.

    Raises:
        ValueError: the stream does not begin with a table of symbols below `cardinality`.
    """
    if order > MAX_ORDER:
        raise ValueError(f"the table's order is {order}, more than {MAX_ORDER}")
    size, at = take_gamma(stream, 0)
    # Each symbol takes at least two bits: nothing is allocated that the stream could not fill.
    if at < 0 or size > cardinality or 2 * size > 8 * len(stream):
        raise ValueError("the table of symbols is malformed")
    symbols, numbers = np.empty(size, np.int64), np.empty(size, np.int64)
    at = _read(stream, at, order, cardinality, symbols, numbers)
    if at < 0:
        reason = "is truncated" if at == -1 else f"has symbols past {cardinality} or large numbers"
        raise ValueError(f"the table of symbols {reason}")
    if at % 8 and int(stream[at // 8]) >> at % 8:
        raise ValueError("the padding bits of the table are not zero")
    return symbols, numbers, (at + 7) // 8

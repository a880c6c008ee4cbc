"""Tables of prices: how much each symbol costs in each cell, in quarters of a bit.

A price p stands for a probability in proportion to 2^(-p/4). Symbols are visited from the one that
occurs most outwards: mode, mode + 1, mode - 1, mode + 2, ... The price of a symbol is predicted
from those of the symbols visited before (see `_predict`), and what it differs by is coded by
gamma(1 + zigzag(difference)), zigzag being 2d - 1 for d > 0 and -2d otherwise. The overall table
comes first, then that of each cell, of which gamma(1 + count) says how many differences follow; the
rest are zero.
"""

import numpy as np

from vqzoo.numerics.arrays import Bytes, Doubles, Ints
from vqzoo.numerics.coding.context.classes import PRIOR, cell_bits
from vqzoo.numerics.coding.gamma import put_gamma, take_gamma
from vqzoo.numerics.compiled import compiled

SCALE = 16  # frequencies sum to 2^SCALE
_MAX = 4 * SCALE  # the price of a symbol of frequency 1
_POWERS = np.array([1073741824, 902905651, 759250125, 638450708], np.int64)  # 2^(30 - k/4)


@compiled()
def _outward(mode, symbols, order):  # type: ignore[no-untyped-def]
    """The symbols in the order in which tables visit them."""
    order[0] = mode
    at = 1
    for distance in range(1, symbols):
        for symbol in (mode + distance, mode - distance):
            if 0 <= symbol < symbols:
                order[at] = symbol
                at += 1


@compiled()
def _predict(symbol, mode, prices, overall):  # type: ignore[no-untyped-def]
    """The price that the symbols visited before suggest; `overall` is zeros for its own table.

    Prices rise from one symbol to the next by as much as overall, and by as much more as they did
    at the mirrored symbol on the other side of the mode, if there is one, or one step before.
    """
    if symbol == mode:
        return overall[mode]
    inward = -1 if symbol > mode else 1
    inner = symbol + inward
    price = prices[inner] + overall[symbol] - overall[inner]
    mirrored = 2 * mode - symbol
    if symbol < mode and mirrored < prices.shape[0]:
        beyond, before = mirrored, 2 * mode - inner
    elif inner != mode:
        beyond, before = inner, inner + inward
    else:
        beyond, before = mode, mode
    price += prices[beyond] - overall[beyond] - (prices[before] - overall[before])
    return max(0, min(price, _MAX))


@compiled()
def _zigzag(difference):  # type: ignore[no-untyped-def]
    return 2 * difference - 1 if difference > 0 else -2 * difference


@compiled()
def _length(number):  # type: ignore[no-untyped-def]
    """Bits of gamma(1 + number)."""
    zeros = 0
    while (number + 1) >> (zeros + 1):
        zeros += 1
    return 2 * zeros + 1


@compiled()
def _fit(order, counts, targets, overall, prices, differences):  # type: ignore[no-untyped-def]
    """Choose the prices of a table at the least cost of codes and differences; how many
    differences are not zero, or come before one that is not.

    A price that is x too high (in nats) for a symbol that occurs c times costs the codes about
    c·(e^-x - 1 + x), as the prices of a cell are normalized.
    """
    last = 0
    for i in range(order.shape[0]):
        symbol = order[i]
        predicted = _predict(symbol, order[0], prices, overall)
        nearest = int(np.floor(targets[symbol] - predicted))
        best, least = 0, np.inf
        for difference in (0, nearest, nearest + 1, -1, 1):
            price = predicted + difference
            if 0 <= price <= _MAX:
                excess = (price - targets[symbol]) * 0.25 * np.log(2.0)
                penalty = np.exp(-excess) - 1 + excess
                bits = _length(_zigzag(difference)) + counts[symbol] * penalty / np.log(2.0)
                if bits < least:
                    best, least = difference, bits
        prices[symbol] = predicted + best
        differences[i] = best
        if best != 0:
            last = i + 1
    return last


@compiled()
def _put_table(stream, at, differences, count):  # type: ignore[no-untyped-def]
    for i in range(count):
        at = put_gamma(stream, at, 1 + _zigzag(differences[i]))
    return at


@compiled()
def _take_table(stream, at, order, count, overall, prices):  # type: ignore[no-untyped-def]
    """Read a table; the position after it, -1 if it is truncated or a price is out of range."""
    for i in range(order.shape[0]):
        predicted = _predict(order[i], order[0], prices, overall)
        difference = 0
        if i < count:
            number, at = take_gamma(stream, at)
            if at < 0:
                return -1
            difference = number // 2 if number % 2 == 0 else -(number // 2)
        price = predicted + difference
        if not 0 <= price <= _MAX:
            return -1
        prices[order[i]] = price
    return at


@compiled()
def _normalize(prices, freqs):  # type: ignore[no-untyped-def]
    """Frequencies: 1 each, the rest in proportion to 2^(-price/4), rounded down; what is left goes
    to the first symbol of the lowest price."""
    symbols = prices.shape[0]
    total = 0
    for s in range(symbols):
        total += _POWERS[prices[s] & 3] >> (prices[s] >> 2)
    left = 1 << SCALE
    for s in range(symbols):
        weight = _POWERS[prices[s] & 3] >> (prices[s] >> 2)
        freqs[s] = 1 + weight * ((1 << SCALE) - symbols) // total
        left -= freqs[s]
    freqs[prices.argmin()] += left


def write_prices(stream: Bytes, at: int, mode: int, counts: Ints) -> tuple[int, Ints]:
    """Write the tables of cells.

    Args:
        stream: zeros from bit `at` on.
        at: the bit to begin at.
        mode: the symbol that tables begin with.
        counts: (cells, symbols) int64.

    Returns:
        The bit after the tables, and the frequencies of each cell, (cells, symbols) int64.
    """
    cells, symbols = counts.shape
    order = np.empty(symbols, np.int64)
    _outward(mode, symbols, order)
    overall, none = np.zeros(symbols, np.int64), np.zeros(symbols, np.int64)
    differences = np.empty(symbols, np.int64)
    totals = counts.sum(0)
    _fit(order, totals + 0.05, _ideal(totals), none, overall, differences)
    at = _put_table(stream, at, differences, symbols)
    targets = np.minimum(4 * cell_bits(counts[:, None, None])[:, 0, 0], _MAX)
    freqs, prices = np.empty_like(counts), np.empty(symbols, np.int64)
    for cell in range(cells):
        count = _fit(
            order,
            (counts[cell].sum() + PRIOR) * 2 ** (-targets[cell] / 4),
            targets[cell],
            overall,
            prices,
            differences,
        )
        at = _put_table(stream, put_gamma(stream, at, 1 + count), differences, count)
        _normalize(prices, freqs[cell])
    return at, freqs


def table_bound(cells: int, symbols: int) -> int:
    """Bits that the tables take at most."""
    return int((cells + 1) * (_length(2 * _MAX) * symbols + _length(symbols)))


def read_prices(stream: Bytes, at: int, mode: int, cells: int, symbols: int) -> tuple[int, Ints]:
    """Read the tables of cells from an untrusted stream.

    Returns:
        As `write_prices`; the bit is -1 if there are no such tables.
    """
    order = np.empty(symbols, np.int64)
    _outward(mode, symbols, order)
    overall, none = np.zeros(symbols, np.int64), np.zeros(symbols, np.int64)
    freqs, prices = np.empty((cells, symbols), np.int64), np.empty(symbols, np.int64)
    at = _take_table(stream, at, order, symbols, none, overall)
    for cell in range(cells):
        count, at = take_gamma(stream, at)
        if at < 0 or count > symbols + 1:
            return -1, freqs
        at = _take_table(stream, at, order, count - 1, overall, prices)
        if at < 0:
            return -1, freqs
        _normalize(prices, freqs[cell])
    return at, freqs


def _ideal(counts: Ints) -> Doubles:
    """Prices of the symbols overall, not rounded."""
    smoothed = counts + 0.05
    result: Doubles = np.minimum(4 * np.log2(smoothed.sum() / smoothed), _MAX)
    return result

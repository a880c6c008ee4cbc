"""Tables of prices: how much each symbol costs in each cell, in quarters of a bit.

A price p stands for a probability in proportion to 2^(-p/4). Symbols are visited from the one that
occurs most outwards: mode, mode + 1, mode - 1, mode + 2, ... The price of a symbol is predicted
from those of the symbols visited before (see `_predict`), and what it differs by is coded by
gamma(1 + zigzag(difference)), zigzag being 2d - 1 for d > 0 and -2d otherwise. The overall table
comes first, then the others, of which gamma(1 + count) says how many differences follow; the rest
are zero.

A price of `limit` or more is clamped to it; what it stands for is up to the version of the stream.
"""

import numpy as np

from vqzoo.numerics.arrays import Bytes, Ints
from vqzoo.numerics.coding.context.classes import PRIOR, cell_bits
from vqzoo.numerics.coding.gamma import put_gamma, take_gamma
from vqzoo.numerics.compiled import compiled

POWERS = np.array([1073741824, 902905651, 759250125, 638450708], np.int64)  # 2^(30 - k/4)


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
def _predict(symbol, mode, limit, prices, overall):  # type: ignore[no-untyped-def]
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
    return max(0, min(price, limit))


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
def _fit(order, limit, used, counts, targets, overall, prices, differences):  # type: ignore[no-untyped-def]
    """Choose the prices of a table at the least cost of codes and differences; how many
    differences are not zero, or come before one that is not.

    A price that is x too high (in nats) for a symbol that occurs c times costs the codes about
    c·(e^-x - 1 + x), as the prices of a cell are normalized. Symbols in use get less than `limit`.
    """
    last = 0
    for i in range(order.shape[0]):
        symbol = order[i]
        predicted = _predict(symbol, order[0], limit, prices, overall)
        nearest = int(np.floor(targets[symbol] - predicted))
        highest = limit - 1 if used[symbol] else limit
        best, least = 0, np.inf
        for difference in (0, nearest, nearest + 1, -1, 1, highest - predicted):
            price = predicted + difference
            if 0 <= price <= highest:
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
def _take_table(stream, at, order, limit, count, overall, prices):  # type: ignore[no-untyped-def]
    """Read a table; the position after it, -1 if it is truncated or a price is out of range."""
    for i in range(order.shape[0]):
        predicted = _predict(order[i], order[0], limit, prices, overall)
        difference = 0
        if i < count:
            number, at = take_gamma(stream, at)
            if at < 0:
                return -1
            difference = number // 2 if number % 2 == 0 else -(number // 2)
        price = predicted + difference
        if not 0 <= price <= limit:
            return -1
        prices[order[i]] = price
    return at


def write_prices(stream: Bytes, at: int, mode: int, limit: int, counts: Ints) -> tuple[int, Ints]:
    """Write tables.

    Args:
        stream: zeros from bit `at` on.
        at: the bit to begin at.
        mode: the symbol that tables begin with.
        limit: the highest price, which symbols that occur do not get.
        counts: (tables, symbols) int64: how often symbols occur.

    Returns:
        The bit after the tables, and the prices of each, (tables, symbols) int64.
    """
    tables, symbols = counts.shape
    order = np.empty(symbols, np.int64)
    _outward(mode, symbols, order)
    overall, none = np.zeros(symbols, np.int64), np.zeros(symbols, np.int64)
    differences = np.empty(symbols, np.int64)
    totals = counts.sum(0)
    ideal = np.minimum(4 * np.log2((totals + 0.05).sum() / (totals + 0.05)), limit)
    _fit(order, limit, totals > 0, totals + 0.05, ideal, none, overall, differences)
    at = _put_table(stream, at, differences, symbols)
    targets = np.minimum(4 * cell_bits(counts[:, None, None])[:, 0, 0], limit)
    prices = np.empty_like(counts)
    for table in range(tables):
        count = _fit(
            order,
            limit,
            counts[table] > 0,
            (counts[table].sum() + PRIOR) * 2 ** (-targets[table] / 4),
            targets[table],
            overall,
            prices[table],
            differences,
        )
        at = _put_table(stream, put_gamma(stream, at, 1 + count), differences, count)
    return at, prices


def table_bound(tables: int, symbols: int, limit: int) -> int:
    """Bits that the tables take at most."""
    return int((tables + 1) * (_length(2 * limit) * symbols + _length(symbols)))


def read_prices(
    stream: Bytes, at: int, mode: int, limit: int, tables: int, symbols: int
) -> tuple[int, Ints]:
    """Read tables from an untrusted stream.

    Returns:
        As `write_prices`; the bit is -1 if there are no such tables.
    """
    order = np.empty(symbols, np.int64)
    _outward(mode, symbols, order)
    overall, none = np.zeros(symbols, np.int64), np.zeros(symbols, np.int64)
    prices = np.empty((tables, symbols), np.int64)
    at = _take_table(stream, at, order, limit, symbols, none, overall)
    for table in range(tables):
        count, at = take_gamma(stream, at)
        if at < 0 or count > symbols + 1:
            return -1, prices
        at = _take_table(stream, at, order, limit, count - 1, overall, prices[table])
        if at < 0:
            return -1, prices
    return at, prices

"""Tables of frequencies: cells that share one, and its scale.

Decoding is fast if the tables fit a processor's first caches, so cells of like distributions share
a table, and frequencies sum to a power of two no larger than it must be.
"""

from itertools import pairwise

import numpy as np

from vqzoo.numerics.arrays import Codes, Ints
from vqzoo.numerics.coding.context.prices import POWERS
from vqzoo.numerics.compiled import compiled

MAX_TABLES = 48
MIN_SCALE, MAX_SCALE = 8, 15
_TABLE_BITS = 8 + 2.5  # what a table takes, and
_SYMBOL_BITS = 2.5  # what each of its symbols takes, about
_NEAR = 1.001


def price_limit(scale: int) -> int:
    """The price of symbols that do not occur, in quarters of a bit."""
    return 4 * scale + 2


def share_tables(counts: Ints) -> tuple[Codes, Ints]:
    """Which cells share a table at the least cost of codes and tables.

    Cells are ordered by their entropy, and neighbours merge as long as that saves bits, or there
    are more than `MAX_TABLES`.

    Args:
        counts: (cells, symbols) int64.

    Returns:
        The table of each cell, (cells,) int32, and the sums of the counts of each table.
    """
    order = np.argsort([_bits(row) / max(1, row.sum()) for row in counts], kind="stable")
    groups, sums = [[int(cell)] for cell in order], list(counts[order])
    costs = [_cost(row) for row in sums]
    joint = [_cost(a + b) for a, b in pairwise(sums)]
    while len(groups) > 1:
        gains = [costs[i] + costs[i + 1] - both for i, both in enumerate(joint)]
        i = int(np.argmax(gains))
        if gains[i] < 0 and len(groups) <= MAX_TABLES:
            break
        groups[i : i + 2] = [groups[i] + groups[i + 1]]
        sums[i : i + 2] = [sums[i] + sums[i + 1]]
        costs[i : i + 2] = [joint.pop(i)]
        for near in (i - 1, i):
            if 0 <= near < len(joint):
                joint[near] = _cost(sums[near] + sums[near + 1])
    tables = np.empty(len(counts), np.int32)
    for number, cells in enumerate(groups):
        tables[cells] = number
    return tables, np.stack(sums)


def _bits(counts: Ints) -> float:
    """What codes of these counts take."""
    used = counts[counts > 0].astype(np.float64)
    return float((used * np.log2(used.sum() / used)).sum())


def _cost(counts: Ints) -> float:
    """What codes of these counts and their table take."""
    return _bits(counts) + _TABLE_BITS + _SYMBOL_BITS * np.count_nonzero(counts)


def best_scale(counts: Ints) -> int:
    """The least scale that costs at most 0.1% more than the best, for counts (tables, symbols)."""
    used = np.maximum(counts, 0)
    totals = np.maximum(used.sum(1, keepdims=True), 1)
    costs = {}
    for scale in range(MIN_SCALE, MAX_SCALE + 1):
        freqs = np.maximum(used * (2.0**scale / totals), used > 0)
        shares = freqs / np.maximum(freqs.sum(1, keepdims=True), 1)
        costs[scale] = float(-(used * np.log2(np.where(used > 0, shares, 1))).sum())
    least = min(costs.values())
    return next(scale for scale, cost in costs.items() if cost <= _NEAR * least)


@compiled()
def _normalize(prices, limit, scale, freqs):  # type: ignore[no-untyped-def]
    """Frequencies in proportion to 2^(-price/4), rounded down, at least 1, and 0 at the limit.

    While they sum to more than 2^scale, the first of the largest loses 1; what remains is added to
    it. Returns whether there are any.
    """
    symbols = prices.shape[0]
    total = 0
    for s in range(symbols):
        if prices[s] < limit:
            total += POWERS[prices[s] & 3] >> (prices[s] >> 2)
    if total == 0:
        return False
    left = 1 << scale
    for s in range(symbols):
        freqs[s] = 0
        if prices[s] < limit:
            weight = POWERS[prices[s] & 3] >> (prices[s] >> 2)
            freqs[s] = max(1, (weight << scale) // total)
            left -= freqs[s]
    while left < 0:
        freqs[freqs.argmax()] -= 1
        left += 1
    freqs[freqs.argmax()] += left
    return True


def frequencies(prices: Ints, scale: int) -> Ints:
    """Frequencies of symbols, (tables, symbols) int64, that sum to 2^scale in each table.

    Args:
        prices: (tables, symbols) int64, 0 to `price_limit(scale)`; at most 2^scale symbols.

    Raises:
        ValueError: a table has no symbol.
    """
    freqs = np.empty_like(prices)
    for table in range(len(prices)):
        if not _normalize(prices[table], price_limit(scale), scale, freqs[table]):
            raise ValueError("a table of the stream has no symbols")
    return freqs

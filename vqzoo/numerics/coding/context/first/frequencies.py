"""Frequencies of the symbols of each cell, from their prices."""

import numpy as np

from vqzoo.numerics.arrays import Ints
from vqzoo.numerics.coding.context.prices import POWERS
from vqzoo.numerics.compiled import compiled

SCALE = 16  # frequencies sum to 2^SCALE
LIMIT = 4 * SCALE  # the price of a symbol of frequency 1


@compiled()
def _normalize(prices, freqs):  # type: ignore[no-untyped-def]
    """Frequencies: 1 each, the rest in proportion to 2^(-price/4), rounded down; what is left goes
    to the first symbol of the lowest price."""
    symbols = prices.shape[0]
    total = 0
    for s in range(symbols):
        total += POWERS[prices[s] & 3] >> (prices[s] >> 2)
    left = 1 << SCALE
    for s in range(symbols):
        weight = POWERS[prices[s] & 3] >> (prices[s] >> 2)
        freqs[s] = 1 + weight * ((1 << SCALE) - symbols) // total
        left -= freqs[s]
    freqs[prices.argmin()] += left


def frequencies(prices: Ints) -> Ints:
    """(cells, symbols) int64 that sum to 2^16 in each cell."""
    freqs = np.empty_like(prices)
    for cell in range(len(prices)):
        _normalize(prices[cell], freqs[cell])
    return freqs

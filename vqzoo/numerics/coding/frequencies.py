"""Counts scaled to frequencies that sum to a power of two, as arithmetic coders need them."""

import numpy as np

from vqzoo.numerics.arrays import Ints


def frequencies(counts: Ints, scale: int) -> Ints:
    """Positive integers that are proportional to counts and sum to 2^scale.

    Symbols too rare for a share of 1 get 1, at the expense of all others in proportion. The others'
    shares are rounded down, and the remainder is given, one by one, to those that gain the most in
    Σ counts·log2(frequencies).

    Args:
        counts: (n,) > 0, their sum below 2^38.
        scale: 1 to 24, at least log2 n.

    Raises:
        ValueError: n is more than 2^scale.
    """
    if len(counts) > 1 << scale:
        raise ValueError(f"{len(counts)} symbols do not fit frequencies that sum to 2^{scale}")
    result = np.ones_like(counts)
    common = np.ones(len(counts), np.bool_)
    while True:
        total = (1 << scale) - int((~common).sum())
        mass = int(counts[common].sum())
        rare = common & (counts * total < mass)
        if not rare.any():
            break
        common &= ~rare
    shares = counts[common] * total // mass
    gain = counts[common] / (shares + 0.5)
    shares[np.argsort(-gain, kind="stable")[: total - int(shares.sum())]] += 1
    result[common] = shares
    return result


def cost_bits(counts: Ints, freqs: Ints, scale: int) -> float:
    """Σ counts·(scale - log2 freqs): the bits that an ideal coder takes with these frequencies."""
    return float(np.sum(counts * (scale - np.log2(freqs))))

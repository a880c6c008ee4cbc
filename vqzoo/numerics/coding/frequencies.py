"""Counts as frequencies that sum to a power of two, as arithmetic coders want them."""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def frequencies(counts: Ints, scale: int) -> Ints:
    """Positive integers in proportion to counts that sum to 2^scale.

    Symbols too rare for their share get 1, at the expense of the others alike; these are rounded
    so that Σ counts·log2(frequencies) is large: what rounding down leaves goes one by one to those
    that gain most from it.

    Args:
        counts: (n,) > 0, their sum below 2^38.
        scale: 1 to 24, at least log2 n.

    Raises:
        ValueError: n is more than 2^scale.
    """
    if len(counts) > 1 << scale:
        raise ValueError(f"{len(counts)} symbols do not fit frequencies that sum to 2^{scale}")
    found = np.ones_like(counts)
    common = np.ones(len(counts), np.bool_)
    while True:
        room = (1 << scale) - int((~common).sum())
        mass = int(counts[common].sum())
        rare = common & (counts * room < mass)
        if not rare.any():
            break
        common &= ~rare
    shares = counts[common] * room // mass
    gain = counts[common] / (shares + 0.5)
    shares[np.argsort(-gain, kind="stable")[: room - int(shares.sum())]] += 1
    found[common] = shares
    return found


def cost_bits(counts: Ints, found: Ints, scale: int) -> float:
    """Σ counts·(scale - log2 frequencies): what an ideal coder takes with these frequencies."""
    return float(np.sum(counts * (scale - np.log2(found))))

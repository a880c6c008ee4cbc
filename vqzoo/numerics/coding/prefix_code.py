"""Optimal prefix codes of limited length."""

import numpy as np

from vqzoo.numerics.arrays import Ints

MAX_LENGTH = 32
_WHOLE = 1 << MAX_LENGTH


def code_lengths(counts: Ints, limit: int = MAX_LENGTH) -> Ints:
    """The lengths of an optimal prefix code among those of at most `limit` bits.

    Package-merge (Larmore and Hirschberg 1990): each symbol has a coin at each of `limit` levels,
    and the cheapest coins that buy a complete code are taken. The code is as short as Huffman's
    where that one keeps to the limit.

    Args:
        counts: (n,) > 0, the occurrences of each symbol; n >= 1.
        limit: the maximum length, at least log2 n.

    Returns:
        (n,) lengths in bits; 0 for a single symbol.

    Raises:
        ValueError: n symbols need codes longer than `limit`.
    """
    n = len(counts)
    if n > 1 << limit:
        raise ValueError(f"{n} symbols need codes of more than {limit} bits")
    order = np.argsort(counts, kind="stable")
    leaves = coins = counts[order]
    levels = [np.ones(n, np.bool_)]  # for each coin in ascending order: is it not a package?
    for _ in range(limit - 1):
        even = len(coins) // 2 * 2
        merged = np.concatenate([leaves, coins[0:even:2] + coins[1:even:2]])
        ascending = np.argsort(merged, kind="stable")
        coins = merged[ascending]
        levels.append(ascending < n)
    lengths = np.zeros(n, np.int64)
    taken = 2 * n - 2
    for single in reversed(levels):
        symbols = int(single[:taken].sum())
        lengths[order[:symbols]] += 1
        taken = 2 * (taken - symbols)
    return lengths


def canonical_starts(lengths: Ints) -> tuple[Ints, Ints]:
    """Canonical codes, ascending by length, then by position.

    Args:
        lengths: (n,), 1 to 32, of a complete code.

    Returns:
        (n,) positions in the order of their codes, and (n,) those codes, first bit highest and
        padded with zeros to 32 bits, which ascend.

    Raises:
        ValueError: a length is out of range, or the code is not complete: Σ 2^-length is not 1.
    """
    if len(lengths) < 2 or int(lengths.min()) < 1 or int(lengths.max()) > MAX_LENGTH:
        raise ValueError(f"code lengths are not all from 1 to {MAX_LENGTH}")
    order = np.argsort(lengths, kind="stable")
    ends = np.cumsum(_WHOLE >> lengths[order])
    if ends[-1] != _WHOLE:
        raise ValueError("the code lengths are not those of a complete prefix code")
    return order, np.concatenate([[0], ends[:-1]])

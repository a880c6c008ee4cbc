"""Code lengths, against Huffman's algorithm and against exhaustive search."""

import heapq
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqzoo.numerics.coding.prefix_code import canonical_starts, code_lengths

COUNTS = st.lists(st.integers(1, 1000), min_size=1, max_size=40)


def huffman_bits(counts: list[int]) -> int:
    """The bits of an optimal prefix code: the total weight of the merges of Huffman's algorithm."""
    heap, total = list(counts), 0
    heapq.heapify(heap)
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        heapq.heappush(heap, merged)
        total += merged
    return total


@given(COUNTS)
def test_codes_within_the_limit_are_as_short_as_huffmans(counts: list[int]) -> None:
    lengths = code_lengths(np.array(counts))
    assert int(lengths @ np.array(counts)) == huffman_bits(counts)


def test_fibonacci_counts_reach_the_limit() -> None:
    fibonacci = [1, 1]
    while len(fibonacci) < 33:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    assert int(code_lengths(np.array(fibonacci)).max()) == 32
    assert int(code_lengths(np.array(fibonacci)) @ np.array(fibonacci)) == huffman_bits(fibonacci)
    steeper = np.array([*fibonacci, fibonacci[-1] + fibonacci[-2]])
    assert int(code_lengths(steeper).max()) == 32
    canonical_starts(code_lengths(steeper))


@given(st.lists(st.integers(1, 60), min_size=2, max_size=5), st.integers(3, 4))
def test_limited_lengths_are_optimal(counts: list[int], limit: int) -> None:
    lengths = code_lengths(np.array(counts), limit)
    assert int(lengths.max()) <= limit
    canonical_starts(lengths)
    best = min(
        sum(length * count for length, count in zip(choice, counts, strict=True))
        for choice in itertools.product(range(1, limit + 1), repeat=len(counts))
        if sum(2.0**-length for length in choice) <= 1
    )
    assert int(lengths @ np.array(counts)) == best


@given(COUNTS.filter(lambda counts: len(counts) > 1))
def test_no_code_is_a_prefix_of_another(counts: list[int]) -> None:
    lengths = code_lengths(np.array(counts))
    order, starts = canonical_starts(lengths)
    words = [f"{start:032b}"[:length] for start, length in zip(starts, lengths[order], strict=True)]
    assert words == sorted(words)
    assert not any(b.startswith(a) for a, b in itertools.pairwise(words))


def test_too_many_symbols_for_a_limit_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 2 bits"):
        code_lengths(np.ones(5, np.int64), 2)


@pytest.mark.parametrize("lengths", [[1], [1, 2], [1, 1, 1], [0, 1], [-1, 1], [33, 1], [1, 2, 3]])
def test_lengths_of_incomplete_codes_are_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="length"):
        canonical_starts(np.array(lengths))

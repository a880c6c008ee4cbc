"""Gaps between positions, and the choice of the largest values."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from vqzoo_deep_compression.survivors import largest

from vqzoo.numerics.coding.gaps import gaps_of, positions_of, stretch_of


@given(
    st.sets(st.integers(0, 3000), max_size=60).map(sorted),
    st.integers(1, 9),
)
def test_gaps_decode_to_the_positions(positions: list[int], bits: int) -> None:
    gaps = gaps_of(torch.tensor(positions, dtype=torch.int64), bits)
    assert positions_of(gaps, bits).tolist() == positions
    if len(gaps):
        assert 0 <= int(gaps.min()) <= int(gaps.max()) < 1 << bits


@given(
    st.sets(st.integers(0, 500), max_size=60).map(sorted),
    st.integers(1, 8),
    st.integers(0, 510),
    st.integers(0, 510),
)
def test_a_stretch_has_the_positions_in_it(
    positions: list[int], bits: int, start: int, stop: int
) -> None:
    start, stop = min(start, stop), max(start, stop)
    gaps = gaps_of(torch.tensor(positions, dtype=torch.int64), bits)
    stretch = stretch_of(gaps, bits, start, stop)
    inside = [position for position in positions if start <= position < stop]
    assert stretch.positions.tolist() == [position - start for position in inside]
    assert stretch.last - stretch.first == len(inside)
    assert positions[stretch.first : stretch.last] == inside


@given(st.sets(st.integers(0, 500), max_size=40).map(sorted), st.integers(1, 8))
def test_gaps_are_those_of_a_plain_loop(positions: list[int], bits: int) -> None:
    filler, expected, before = (1 << bits) - 1, [], -1
    for position in positions:
        zeros = position - before - 1
        while zeros >= filler:
            expected.append(filler)
            zeros -= filler
        expected.append(zeros)
        before = position
    assert gaps_of(torch.tensor(positions, dtype=torch.int64), bits).tolist() == expected


@given(
    st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 1e-30, 1e30]), max_size=30),
    st.data(),
)
def test_the_largest_values_are_those_of_a_stable_sort(
    values: list[float], data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, len(values)))
    positions = largest(torch.tensor(values, dtype=torch.float32), count)
    order = np.argsort(-np.abs(np.float32(values)), kind="stable")[:count]
    assert positions.tolist() == sorted(order.tolist())

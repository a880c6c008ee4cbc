"""Symbol counts and entropy, against numpy and scipy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from vqzoo.numerics.coding.entropy import entropy_bits, symbol_counts
from vqzoo.numerics.threads import use_threads


@given(st.lists(st.integers(0, 9), max_size=60))
def test_counts_and_entropy_equal_those_of_numpy_and_scipy(codes: list[int]) -> None:
    values = torch.tensor(codes, dtype=torch.int64)
    counts = symbol_counts(values, 10)
    assert counts.tolist() == np.bincount(codes or np.empty(0, int), minlength=10).tolist()
    expected = len(codes) * entropy(counts, base=2) if codes else 0.0
    assert entropy_bits(values, 10) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_counts_of_several_tasks_add_up(dtype: torch.dtype, threads: int) -> None:
    values = torch.arange(2_500_003).remainder(100).to(dtype).reshape(1, -1)
    with use_threads(threads):
        counts = symbol_counts(values, 300)
    assert counts.tolist() == np.bincount(values[0].numpy(), minlength=300).tolist()


@pytest.mark.parametrize(
    ("codes", "cardinality"), [([-1], 4), ([0, 4], 4), ([1 << 40], 4), ([0], 0), ([0], 65537)]
)
def test_codes_out_of_range_are_refused(codes: list[int], cardinality: int) -> None:
    with pytest.raises(ValueError, match=r"below|between"):
        symbol_counts(torch.tensor(codes), cardinality)

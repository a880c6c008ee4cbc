"""Rankings agree with scikit-learn and with brute force over the orders of ties."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from torch import Tensor

from vqzoo.evaluation.ranking import rank_others, unit_integers

seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int, n: int, d: int, classes: int) -> tuple[Tensor, Tensor]:
    """Vectors with few distinct values, so that many are parallel or equally far; and labels."""
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-1, 3, (n, d)).astype(np.float32)
    return torch.from_numpy(vectors), torch.from_numpy(rng.integers(0, classes, n))


def others(n: int, query: int) -> np.ndarray:
    return np.arange(n) != query


def has_another(labels: Tensor) -> list[int]:
    return [i for i in range(len(labels)) if (labels == labels[i]).sum() > 1]


@given(seeds, st.integers(2, 40), st.integers(1, 5), st.integers(1, 6))
def test_average_precision_is_scikit_learns_ties_included(
    seed: int, n: int, d: int, classes: int
) -> None:
    vectors, labels = drawn(seed, n, d, classes)
    result = rank_others(vectors, vectors, labels).average_precision
    exact = unit_integers(vectors).to(torch.int64)
    expected = [
        average_precision_score(
            (labels == labels[i]).numpy()[others(n, i)], (exact @ exact[i]).numpy()[others(n, i)]
        )
        for i in has_another(labels)
    ]
    assert result.tolist() == pytest.approx(expected, abs=1e-12)


@given(seeds, st.integers(2, 25), st.integers(2, 8))
def test_untied_average_precision_is_that_of_float64_cosines(seed: int, n: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, labels = rng.normal(size=(n, d)), rng.integers(0, 3, n)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    result = rank_others(*[torch.from_numpy(vectors)] * 2, torch.from_numpy(labels))
    expected = []
    for i in has_another(torch.from_numpy(labels)):
        order = np.argsort(-cosines[i][others(n, i)])
        hits = (labels == labels[i])[others(n, i)][order]
        ranks = np.flatnonzero(hits) + 1
        expected.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    assert result.average_precision.tolist() == pytest.approx(expected, abs=1e-12)


@given(seeds, st.integers(3, 7), st.integers(1, 4))
def test_precision_at_k_is_the_mean_over_the_orders_of_ties(seed: int, n: int, k: int) -> None:
    vectors, labels = drawn(seed, n, 2, 2)
    result = rank_others(vectors, vectors, labels, cutoffs=(k,)).precision
    if k >= n:
        assert result == {}
        return
    exact = unit_integers(vectors).to(torch.int64)
    for place, query in enumerate(has_another(labels)):
        items = [i for i in range(n) if i != query]
        similar = {i: int(exact[i] @ exact[query]) for i in items}
        orders = [
            order
            for order in itertools.permutations(items)
            if all(similar[a] >= similar[b] for a, b in itertools.pairwise(order))
        ]
        hits = sum(int(labels[i] == labels[query]) for order in orders for i in order[:k])
        assert float(result[k][place]) == pytest.approx(float(Fraction(hits, k * len(orders))))


def test_an_example_computed_by_hand() -> None:
    # Cosines of the first item: 1, 1, 0.6, 0.6, 0; relevant: the second, the fourth, the last.
    vectors = torch.tensor([[1, 0], [2, 0], [1, 0], [3, 4], [6, 8], [0, 1]], dtype=torch.float32)
    labels = torch.tensor([0, 0, 1, 1, 0, 0])
    result = rank_others(vectors, vectors, labels, cutoffs=(1, 3, 4))
    # 1 of the first 2, 2 of the first 4, 3 of all 5.
    assert float(result.average_precision[0]) == pytest.approx((1 / 2 + 2 / 4 + 3 / 5) / 3)
    assert float(result.precision[1][0]) == pytest.approx(1 / 2)
    assert float(result.precision[3][0]) == pytest.approx((1 + 1 / 2) / 3)
    assert float(result.precision[4][0]) == pytest.approx(2 / 4)


@given(seeds, st.integers(2, 30), st.integers(2, 5))
def test_bounds_and_the_perfect_ranking(seed: int, n: int, classes: int) -> None:
    vectors, labels = drawn(seed, n, 3, classes)
    result = rank_others(vectors, vectors, labels)
    for values in (result.average_precision, *result.precision.values()):
        assert ((values > 0) | (values == 0)).all()
        assert (values <= 1).all()
    assert (result.average_precision > 0).all()
    perfect = torch.nn.functional.one_hot(labels).float()
    assert rank_others(perfect, perfect, labels).average_precision.tolist() == [1.0] * len(
        has_another(labels)
    )


@given(seeds, st.integers(2, 30), st.integers(1, 64))
def test_neither_order_nor_blocks_nor_lengths_matter(seed: int, n: int, block: int) -> None:
    vectors, labels = drawn(seed, n, 4, 3)
    vectors += 0.1 * torch.randn(n, 4, generator=torch.Generator().manual_seed(seed % 2**31))
    result = rank_others(vectors, vectors, labels, cutoffs=(1,))
    by_item = torch.full((n,), math.nan, dtype=torch.float64)
    by_item[has_another(labels)] = result.average_precision

    order = torch.from_numpy(np.random.default_rng(seed).permutation(n))
    powers = 2.0 ** torch.arange(n)[:, None].remainder(60)
    moved = rank_others(
        (powers * vectors)[order], vectors[order], labels[order], cutoffs=(1,), block=block
    )
    expected = by_item[order]
    assert torch.equal(moved.average_precision, expected[~expected.isnan()])


def test_the_number_of_threads_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(300, 700, generator=generator)
    labels = torch.randint(0, 5, (300,), generator=generator)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(rank_others(vectors, vectors, labels))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0].average_precision, results[1].average_precision)
    assert torch.equal(results[0].precision[10], results[1].precision[10])


def test_queries_are_searched_for_in_another_database() -> None:
    queries, labels = drawn(5, 30, 4, 3)
    database, _ = drawn(6, 30, 4, 3)
    result = rank_others(queries, database, labels).average_precision
    q, x = unit_integers(queries).to(torch.int64), unit_integers(database).to(torch.int64)
    expected = [
        average_precision_score(
            (labels == labels[i]).numpy()[others(30, i)], (x @ q[i]).numpy()[others(30, i)]
        )
        for i in has_another(labels)
    ]
    assert result.tolist() == pytest.approx(expected, abs=1e-12)


def test_products_stay_exact_whatever_the_scale() -> None:
    huge = torch.tensor([[3e38, 3e38], [1e-45, 0.0], [0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
    integers = unit_integers(huge)
    side = round(2**25 / math.sqrt(2))
    assert integers.tolist() == [[side, side], [2.0**25, 0], [0, 0], [0, 0], [0, 0]]
    wide = unit_integers(torch.ones(2, 10**6))
    assert int((wide[0] @ wide[1]).item()) == 10**6 * int(wide[0, 0]) ** 2 < 2**51


def test_a_collapsed_network_ranks_as_chance_does() -> None:
    labels = torch.tensor([0] * 6 + [1] * 4)
    same = torch.full((10, 3), 0.1)
    result = rank_others(same, same, labels)
    assert result.average_precision.tolist() == pytest.approx([5 / 9] * 6 + [3 / 9] * 4)
    assert result.precision[1].tolist() == pytest.approx([5 / 9] * 6 + [3 / 9] * 4)
    assert 10 not in result.precision


def test_queries_whose_label_no_other_item_shares_are_left_out() -> None:
    vectors, _ = drawn(0, 5, 3, 2)
    seen: list[tuple[int, int]] = []
    result = rank_others(
        vectors, vectors, torch.tensor([7, 3, 7, 4, 5]), progress=lambda *done: seen.append(done)
    )
    assert len(result.average_precision) == 2
    assert seen == [(2, 2)]
    none = rank_others(vectors, vectors, torch.arange(5))
    assert none.average_precision.shape == none.precision[1].shape == (0,)


def test_shapes_that_do_not_match() -> None:
    with pytest.raises(ValueError, match="do not match"):
        rank_others(torch.ones(3, 2), torch.ones(3, 4), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="do not match"):
        rank_others(torch.ones(3, 2), torch.ones(3, 2), torch.zeros(4, dtype=torch.int64))

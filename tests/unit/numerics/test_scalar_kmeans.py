"""Scalar k-means, against a plain dynamic program and scikit-learn."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from torch import Tensor

from vqzoo.numerics.clustering.scalar.intervals import run_cost, running_sums
from vqzoo.numerics.clustering.scalar_kmeans import assign_scalar, scalar_centroids, scalar_kmeans
from vqzoo.numerics.threads import use_threads


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(values: Tensor, k: int, weights: Tensor | None = None, exact: bool = False) -> float:
    clusters = scalar_kmeans(values, k, weights=weights, exact=exact)
    squares = (clusters.centroids[clusters.codes.long()].double() - values.double()) ** 2
    return float((squares if weights is None else squares * weights).sum())


def optimum(values: list[float], weights: list[float], k: int) -> float:
    """The textbook dynamic program, O(k n²)."""
    order = np.argsort(values)
    v, w = np.array(values)[order], np.array(weights)[order]
    n = len(v)

    def cost(i: int, j: int) -> float:
        mass = w[i:j].sum()
        if mass == 0:
            return 0.0
        return float((w[i:j] * (v[i:j] - (w[i:j] * v[i:j]).sum() / mass) ** 2).sum())

    best = [0.0] + [np.inf] * n
    for _ in range(k):
        best = [0.0] + [min(best[i] + cost(i, j) for i in range(j)) for j in range(1, n + 1)]
    return best[n]


@settings(deadline=None)
@given(
    st.lists(st.floats(-100, 100, width=16), min_size=1, max_size=25),
    st.integers(1, 8),
    st.booleans(),
)
def test_is_optimal(values: list[float], k: int, exact: bool) -> None:
    best = optimum(values, [1.0] * len(values), k)
    assert error(torch.tensor(values), k, exact=exact) <= best * (1 + 1e-4) + 1e-4


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-9, 9, width=16), st.integers(1, 9)), min_size=1, max_size=20),
    st.integers(1, 6),
)
def test_is_optimal_with_weights(pairs: list[tuple[float, int]], k: int) -> None:
    values, weights = (list(part) for part in zip(*pairs, strict=True))
    best = optimum(values, weights, k)
    actual = error(torch.tensor(values), k, weights=torch.tensor(weights).float())
    assert actual <= best * (1 + 1e-4) + 1e-4


def test_values_of_negligible_weight_do_not_count() -> None:
    values, weights = draw(1000), torch.ones(1000)
    weights[::3] = 1e-30
    heavy = weights == 1
    expected = scalar_kmeans(values[heavy], 8).centroids
    torch.testing.assert_close(scalar_kmeans(values, 8, weights=weights).centroids, expected)


@settings(deadline=None)
@given(st.integers(2, 30), st.integers(1, 30))
def test_equal_gaps_have_many_optima(n: int, k: int) -> None:
    values = [float(i) for i in range(n)]
    best = optimum(values, [1.0] * n, min(k, n))
    assert error(torch.tensor(values), k, exact=True) == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("k", [2, 16, 256])
def test_many_values_in_bins_come_close_to_the_optimum(k: int) -> None:
    values = torch.distributions.Laplace(0, 0.01).icdf(torch.linspace(0.0005, 0.9995, 200_001))
    assert error(values, k) <= 1.0001 * error(values, k, exact=True)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("k", [2, 16, 256])
def test_exact_cuts_of_many_values_are_found_from_bins(
    k: int, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = draw(70_000)
    weights = draw(70_000, seed=1).abs() if weighted else None
    best = error(values, k, weights, exact=True)  # each value has its own bin
    monkeypatch.setattr("vqzoo.numerics.clustering.scalar_kmeans.FEW", 0)
    assert error(values, k, weights, exact=True) <= best * (1 + 1e-6)
    if k == 256:
        assert error(values, k, weights) > best * (1 + 1e-5)  # the bins alone are not enough


def test_is_no_worse_than_scikit_learn() -> None:
    values = draw(5000)
    reference = KMeans(16, n_init=3, random_state=0).fit(values[:, None].numpy()).inertia_
    assert error(values, 16) <= reference * (1 + 1e-5)


def test_far_outliers_cost_no_precision() -> None:
    values = draw(300_000)
    clean = error(values, 64, exact=True)
    values[:4] = torch.tensor([1e6, -3e7, 1e9, 2e6])
    bins, exact = error(values, 68), error(values, 68, exact=True)
    assert exact <= bins <= 1.0001 * clean


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-1, 1, width=16) | st.floats(-1e9, 1e9, width=32), st.integers(1, 99)),
        min_size=2,
        max_size=20,
    ),
    st.data(),
)
def test_costs_of_runs_are_precise_beside_far_outliers(
    pairs: list[tuple[float, int]], data: st.DataObject
) -> None:
    values, weights = (np.array(part, np.float64) for part in zip(*sorted(pairs), strict=True))
    start = data.draw(st.integers(0, len(values) - 1))
    stop = data.draw(st.integers(start + 1, len(values)))
    cost = run_cost(running_sums(weights, weights * values), start, stop)
    run = [(Fraction(v), Fraction(w)) for v, w in zip(values, weights, strict=True)][start:stop]
    mean = sum(v * w for v, w in run) / sum(w for _, w in run)
    exact = float(sum(w * (v - mean) ** 2 for v, w in run))
    # The tolerance is relative to the squares of the run itself, however large others are; only its
    # moment loses digits of float64 to the moments of others.
    squares = float(sum(w * v * v for v, w in run))
    lost = float(np.abs(weights * values).sum()) * 2.0**-50
    tolerance = squares * 1e-13 + lost * (lost + 2 * squares**0.5 * 10)
    assert cost == pytest.approx(exact, abs=tolerance)


def test_nan_and_infinities_get_valid_codes() -> None:
    values = torch.tensor([np.nan, np.inf, -np.inf, 0.4])
    codes = assign_scalar(values, torch.tensor([-1.0, 0.0, 1.0]))
    assert codes[1:].tolist() == [2, 0, 1]
    assert int(codes[0]) < 3


def test_scalar_centroids_returns_the_centroids_of_scalar_kmeans() -> None:
    values, weights = draw(3000), draw(3000, seed=1).abs()
    centroids = scalar_kmeans(values, 16, weights=weights).centroids
    assert scalar_centroids(values, 16, weights=weights).equal(centroids)


@pytest.mark.parametrize("k", [1, 2, 16, 256, 300, 5000])
def test_shapes_dtypes_and_order(k: int) -> None:
    values = draw(30, 20, 20)
    clusters = scalar_kmeans(values, k)
    assert clusters.codes.shape == values.shape
    assert clusters.codes.dtype == (torch.uint8 if k <= 256 else torch.int32)
    assert clusters.centroids.shape == (k,)
    assert clusters.centroids.dtype == torch.float32
    assert bool((clusters.centroids.diff() >= 0).all())
    assert int(clusters.codes.max()) < k


def test_surplus_centroids_repeat_the_largest() -> None:
    clusters = scalar_kmeans(torch.tensor([3.0, 1.0, 3.0]), 5)
    assert clusters.centroids.tolist() == [1.0, 3.0, 3.0, 3.0, 3.0]
    assert clusters.codes.tolist() == [1, 0, 1]


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e4, 1e4, width=16), min_size=1, max_size=40),
    st.lists(st.floats(-1e4, 1e4, width=16), min_size=1, max_size=40),
)
def test_assign_chooses_the_lowest_of_the_nearest_centroids(
    values: list[float], centroids: list[float]
) -> None:
    centers = torch.tensor(sorted(centroids), dtype=torch.float32)
    x = torch.tensor(values, dtype=torch.float32)
    expected = (x[:, None].double() - centers.double()).abs().argmin(1)
    assert assign_scalar(x, centers).long().equal(expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_exactly(dtype: torch.dtype) -> None:
    values = draw(70_000).to(dtype)
    half, full = scalar_kmeans(values, 16), scalar_kmeans(values.float(), 16)
    assert half.centroids.equal(full.centroids)
    assert half.codes.equal(full.codes)


def test_same_result_with_any_number_of_threads() -> None:
    values = draw(300_000)
    results = []
    for threads in (1, 2, 5):
        with use_threads(threads):
            results.append(scalar_kmeans(values, 64))
    assert all(r.centroids.equal(results[0].centroids) for r in results)
    assert all(r.codes.equal(results[0].codes) for r in results)


def test_constant_values() -> None:
    assert error(torch.full((100_000,), 0.3), 16) <= 1e-9
    assert error(torch.zeros(100_000), 2) == 0


@pytest.mark.parametrize(
    ("values", "k", "weights", "message"),
    [
        (torch.empty(0), 2, None, "at least one"),
        (torch.ones(3), 0, None, "at least one"),
        (torch.ones(3), 1, torch.ones(2), "shape"),
        (torch.ones(3), 1, -torch.ones(3), "negative"),
        (torch.tensor([1.0, np.inf]), 1, None, "finite"),
        (torch.full((70_000,), np.nan), 1, None, "finite"),
    ],
)
def test_refuses(values: Tensor, k: int, weights: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scalar_kmeans(values, k, weights=weights)


def test_assign_refuses_centroids_that_do_not_ascend() -> None:
    with pytest.raises(ValueError, match="ascending"):
        assign_scalar(torch.ones(2), torch.tensor([1.0, 0.0]))

"""k-means++ and relocation: which points are drawn how often, and which clusters are merged."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vqzoo.numerics.kernels.padded_points import row_stride
from vqzoo.numerics.kernels.relocation import merge_partners
from vqzoo.numerics.kernels.seeding import generator, seed_plus_plus


def seeds(points: np.ndarray, weights: np.ndarray, k: int, seed: int) -> np.ndarray:
    """k centroids drawn from points (n, d)."""
    n, d = points.shape
    stride = row_stride(n)
    x, masses = np.zeros((d, stride), np.float32), np.zeros(stride, np.float32)
    x[:, :n], masses[:n] = points.T, weights
    centroids = np.empty((k, d))
    seed_plus_plus(x.reshape(-1), stride, d, masses, generator(seed, 0), centroids)
    return centroids


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 5), st.integers(0, 2**32))
def test_as_many_seeds_as_distinct_points_are_those_points(n: int, d: int, seed: int) -> None:
    points = np.arange(n * d, dtype=np.float32).reshape(n, d) / (n * d)
    centroids = seeds(points, np.ones(n, np.float32), n, seed)
    assert sorted(map(tuple, centroids)) == sorted(map(tuple, points.astype(np.float64)))


def test_points_without_weight_are_never_drawn() -> None:
    points = np.random.default_rng(0).standard_normal((300, 3)).astype(np.float32)
    weights = (np.arange(300) % 3 == 0).astype(np.float32)
    drawn = {tuple(row) for seed in range(5) for row in seeds(points, weights, 100, seed)}
    assert drawn == {tuple(row) for row in points[::3].astype(np.float64)}


def test_the_second_seed_is_drawn_by_weight_times_squared_distance() -> None:
    # The others are 1, 2 and 3 away from 0, which weighs most by far: odds of 1 : 2·4 : 9.
    points = np.array([[0.0], [1.0], [2.0], [3.0]], np.float32)
    weights = np.array([1e6, 1.0, 2.0, 1.0], np.float32)
    counts = np.zeros(4)
    for seed in range(4000):
        first, second = seeds(points, weights, 2, seed)[:, 0]
        if first == 0.0:
            counts[int(second)] += 1
    assert counts[0] == 0
    np.testing.assert_allclose(counts[1:] / counts.sum(), [1 / 18, 8 / 18, 9 / 18], atol=0.03)


@settings(deadline=None)
@given(st.integers(2, 90), st.integers(1, 6), st.integers(0, 2**32))
def test_partners_cost_the_least_to_merge_with(k: int, d: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    counts = random.integers(0, 9, k).astype(np.float64)
    means = random.standard_normal((k, d))
    partners = merge_partners(means * counts[:, None], counts)
    for j in np.flatnonzero(counts):
        others = np.flatnonzero(counts)
        others = others[others != j]
        if not len(others):
            continue
        square = ((means[others] - means[j]) ** 2).sum(1)
        costs = square * counts[others] * counts[j] / (counts[others] + counts[j])
        cost = costs[np.flatnonzero(others == partners[j])]
        assert len(cost) == 1
        assert cost[0] <= costs.min() * (1 + 1e-5)

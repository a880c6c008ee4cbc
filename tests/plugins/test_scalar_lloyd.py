"""Lloyd's iterations on numbers, and the initializations of Deep Compression."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from vqzoo_deep_compression.lloyd import initial_centroids, scalar_lloyd


def error(values: torch.Tensor, centroids: torch.Tensor) -> float:
    return float((values.double()[:, None] - centroids.double()).square().amin(1).sum())


@pytest.mark.parametrize("k", [2, 7, 16])
def test_the_centroids_are_those_of_scikit_learn(k: int) -> None:
    values = torch.randn(4000, generator=torch.Generator().manual_seed(k))
    start = torch.linspace(float(values.min()), float(values.max()), k)
    model = KMeans(k, init=start[:, None].numpy(), n_init=1, max_iter=1000, tol=0)
    model.fit(values[:, None].double().numpy())
    centroids = scalar_lloyd(values, start, iterations=1000)
    np.testing.assert_allclose(centroids, np.sort(model.cluster_centers_[:, 0]), atol=1e-4)


@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40),
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=6),
)
def test_the_error_never_rises(values: list[float], start: list[float]) -> None:
    points, initial = torch.tensor(values), torch.tensor(start)
    before = error(points, initial)
    for iterations in (1, 2, 5):
        centroids = scalar_lloyd(points, initial, iterations=iterations)
        assert (centroids.diff() >= 0).all()
        after = error(points, centroids)
        assert after <= before * (1 + 1e-6) + 1e-6
        before = after


def test_initial_centroids_follow_the_range_the_distribution_or_the_seed() -> None:
    values = torch.arange(100.0) ** 2
    assert initial_centroids(values, 3, "linear", 0).tolist() == [0, 9801 / 2, 9801]
    assert initial_centroids(values, 4, "density", 0).tolist() == [144, 1369, 3844, 7569]
    drawn = [initial_centroids(values, 10, "random", seed) for seed in (0, 0, 1)]
    assert drawn[0].equal(drawn[1])
    assert not drawn[0].equal(drawn[2])
    assert len(drawn[0].unique()) == 10
    assert bool(torch.isin(drawn[0], values).all())

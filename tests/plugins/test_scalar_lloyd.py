"""Lloyd's iterations on numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from vqzoo_deep_compression.lloyd import scalar_lloyd


def error(values: torch.Tensor, centroids: torch.Tensor) -> float:
    return float((values.double()[:, None] - centroids.double()).square().amin(1).sum())


@pytest.mark.parametrize("k", [2, 7, 16])
def test_the_same_as_scikit_learn_from_the_same_start(k: int) -> None:
    values = torch.randn(4000, generator=torch.Generator().manual_seed(k))
    start = torch.linspace(float(values.min()), float(values.max()), k)
    model = KMeans(k, init=start[:, None].numpy(), n_init=1, max_iter=1000, tol=0)
    model.fit(values[:, None].double().numpy())
    found = scalar_lloyd(values, start, iterations=1000)
    np.testing.assert_allclose(found, np.sort(model.cluster_centers_[:, 0]), atol=1e-4)


@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40),
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=6),
)
def test_no_step_makes_it_worse(values: list[float], start: list[float]) -> None:
    points, centroids = torch.tensor(values), torch.tensor(start)
    before = error(points, centroids)
    for iterations in (1, 2, 5):
        found = scalar_lloyd(points, centroids, iterations=iterations)
        assert (found.diff() >= 0).all()
        after = error(points, found)
        assert after <= before * (1 + 1e-6) + 1e-6
        before = after

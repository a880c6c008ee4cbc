"""k-means by metrics other than the Euclidean."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vqzoo.numerics.clustering.kmeans import kmeans
from vqzoo.numerics.clustering.metric_kmeans import assign_by_metric, metric_kmeans


def problem(blocks: int, d: int, n: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(blocks, d, n, generator=generator)
    roots = torch.randn(blocks, d, d + 2, generator=generator) * torch.rand(
        blocks, d, 1, generator=generator
    )
    return points, roots @ roots.mT + 1e-3 * torch.eye(d)


def costs(points: Tensor, metrics: Tensor, centroids: Tensor) -> Tensor:
    """(blocks, n, k), computed from the definition."""
    residuals = points.double().transpose(1, 2)[:, :, None] - centroids.double()[:, None]
    return torch.einsum("bnki,bij,bnkj->bnk", residuals, metrics.double(), residuals)


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 30), st.integers(1, 9), st.booleans())
def test_codes_are_those_of_the_nearest_centroids(
    blocks: int, d: int, n: int, k: int, shared: bool
) -> None:
    points, metrics = problem(blocks, d, n, seed=blocks * n)
    centroids = torch.randn(1 if shared else blocks, k, d)
    codes = assign_by_metric(points, metrics, centroids)
    cost = costs(points, metrics, centroids)
    chosen = cost.gather(2, codes.long()[:, :, None])[:, :, 0]
    np.testing.assert_allclose(chosen, cost.amin(2), rtol=1e-3, atol=1e-4)


def test_the_identity_metric_is_plain_kmeans() -> None:
    points, _ = problem(3, 4, 200, seed=1)
    same = metric_kmeans(points, torch.eye(4).expand(3, 4, 4), 8, seed=5)
    plain = kmeans(points, 8, seed=5)
    torch.testing.assert_close(same.centroids, plain.centroids)
    assert torch.equal(same.codes, plain.codes)


@pytest.mark.parametrize("shared", [False, True])
def test_the_error_by_the_metric_is_lower_than_that_of_plain_kmeans(shared: bool) -> None:
    points, metrics = problem(6, 4, 300, seed=2)
    clusters = metric_kmeans(points, metrics, 16, shared=shared)
    plain = kmeans(
        points.transpose(0, 1).reshape(1, 4, -1) if shared else points,
        16,
    )
    by_metric = costs(points, metrics, clusters.centroids).amin(2).sum()
    by_distance = costs(points, metrics, plain.centroids).amin(2).sum()
    assert by_metric < 0.95 * by_distance


def test_no_round_raises_the_error_of_a_shared_codebook() -> None:
    points, metrics = problem(5, 3, 100, seed=3)
    errors = [
        float(
            costs(
                points,
                metrics,
                metric_kmeans(
                    points, metrics, 7, shared=True, rounds=rounds, tolerance=0.0
                ).centroids,
            )
            .amin(2)
            .sum()
        )
        for rounds in (0, 1, 2, 4, 8)
    ]
    assert all(after <= before * (1 + 1e-5) for before, after in pairwise(errors))
    assert errors[-1] < errors[0]


def test_a_shared_centroid_is_the_weighted_least_squares_solution() -> None:
    points, metrics = problem(3, 2, 20, seed=4)
    clusters = metric_kmeans(points, metrics, 1, shared=True)
    roots = torch.linalg.cholesky(metrics.double()).mT
    left = torch.cat([root.repeat(20, 1) for root in roots])
    right = torch.cat(
        [(root @ x.double()).T.reshape(-1) for root, x in zip(roots, points, strict=True)]
    )
    expected = np.linalg.lstsq(left.numpy(), right.numpy(), rcond=None)[0]
    np.testing.assert_allclose(clusters.centroids[0, 0], expected, rtol=1e-4)


def test_metrics_that_are_not_positive_definite_are_refused() -> None:
    points, metrics = problem(2, 3, 10, seed=0)
    with pytest.raises(ValueError, match="positive definite"):
        metric_kmeans(points, -metrics, 2)
    with pytest.raises(ValueError, match="shape"):
        metric_kmeans(points, metrics[:1], 2)

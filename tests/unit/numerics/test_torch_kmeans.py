"""k-means in plain torch, against the kernels (both run here on the CPU)."""

import pytest
import torch
from torch import Tensor

from vqzoo.numerics import torch_kmeans
from vqzoo.numerics.kmeans import Clusters, assign, kmeans
from vqzoo.numerics.torch_kmeans import assign_torch, train_torch


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def error(points: Tensor, clusters: Clusters) -> float:
    index = clusters.codes.long()[:, :, None].expand(-1, -1, points.shape[1])
    return float((clusters.centroids.gather(1, index).transpose(1, 2) - points).square().sum())


def train(points: Tensor, k: int, weights: Tensor | None = None) -> Clusters:
    centroids = train_torch(points, k, weights, 0, 50, 1e-5)
    return Clusters(centroids, assign_torch(points, centroids))


@pytest.mark.parametrize("k", [1, 16, 300])
def test_codes_are_those_of_the_kernels(k: int) -> None:
    points, centroids = draw(3, 4, 500), draw(3, k, 4)
    mine, kernels = assign_torch(points, centroids), assign(points, centroids)
    assert mine.dtype == kernels.dtype
    assert (mine != kernels).float().mean() < 0.002  # ties within rounding


@pytest.mark.parametrize(("d", "k"), [(1, 4), (4, 16), (8, 64)])
def test_error_is_close_to_that_of_the_kernels(d: int, k: int) -> None:
    points = draw(4, d, 1000) * 3 + 50
    assert error(points, train(points, k)) <= 1.08 * error(points, kmeans(points, k))


def test_problems_cut_into_groups_and_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    points = draw(4, 4, 300)
    whole = train(points, 16)
    monkeypatch.setattr(torch_kmeans, "_SCORES", 1000)
    parts = train(points, 16)
    torch.testing.assert_close(parts.centroids, whole.centroids, rtol=1e-3, atol=1e-3)


def test_empty_clusters_take_costly_points() -> None:
    points = draw(1, 2, 6).repeat(1, 1, 50)
    assert error(points, train(points, 6)) <= 1e-6


def test_points_of_weight_zero_do_not_count() -> None:
    points, weights = draw(1, 3, 200), torch.ones(1, 200)
    weights[:, 100:] = 0
    found = train(points, 8, weights)
    near = Clusters(found.centroids, found.codes[:, :100])
    assert error(points[:, :, :100], near) <= 1.1 * error(
        points[:, :, :100], kmeans(points[:, :, :100], 8)
    )


def test_refuses_points_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="finite"):
        train(draw(1, 2, 9) / 0, 3)

"""The public functions on tensors of a device other than the CPU."""

from collections.abc import Iterator

import pytest
import torch
from elsewhere import DEVICE, Elsewhere
from torch import Tensor

from vqzoo.numerics.kmeans import Clusters, assign, kmeans


@pytest.fixture(autouse=True)
def _device() -> Iterator[None]:
    with Elsewhere():
        yield


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(points: Tensor, clusters: Clusters) -> float:
    codes, centroids = clusters.codes.cpu(), clusters.centroids.cpu()
    index = codes.long()[:, :, None].expand(-1, -1, points.shape[1])
    return float((centroids.gather(1, index).transpose(1, 2) - points).square().sum())


def test_the_pretended_device_refuses_what_a_real_one_refuses() -> None:
    there = draw(3).to(DEVICE)
    assert there.device == DEVICE
    assert (there + 1).cpu().equal(draw(3) + 1)
    with pytest.raises(RuntimeError, match="several devices"):
        there + draw(3)
    with pytest.raises(RuntimeError):
        there.numpy()


@pytest.mark.parametrize("sample", [None, 500])
def test_kmeans_gives_its_results_there(sample: int | None) -> None:
    points = draw(3, 4, 1000)
    clusters = kmeans(points.to(DEVICE), 16, sample=sample)
    assert clusters.codes.device == clusters.centroids.device == DEVICE
    assert clusters.codes.dtype == torch.uint8
    assert error(points, clusters) <= 1.05 * error(points, kmeans(points, 16, sample=sample))


def test_weights_are_taken_there() -> None:
    points, weights = draw(2, 3, 200), torch.ones(2, 200)
    weights[:, 100:] = 0
    clusters = kmeans(points.to(DEVICE), 8, weights=weights.to(DEVICE))
    near = Clusters(clusters.centroids, clusters.codes[:, :100])
    alone = points[:, :, :100]
    assert error(alone, near) <= 1.1 * error(alone, kmeans(alone, 8))


def test_assign_gives_the_codes_of_the_cpu() -> None:
    points, centroids = draw(3, 4, 500), draw(3, 300, 4)
    codes = assign(points.to(DEVICE), centroids.to(DEVICE))
    assert codes.device == DEVICE
    assert codes.cpu().equal(assign(points, centroids))


def test_progress_ends_at_its_total() -> None:
    seen: list[tuple[int, int]] = []
    kmeans(draw(3, 2, 50).to(DEVICE), 4, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1]


def test_an_interrupt_leaves() -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kmeans(draw(3, 2, 50).to(DEVICE), 4, progress=interrupt)

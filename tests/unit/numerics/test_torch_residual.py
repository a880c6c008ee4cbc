"""Residual quantization for accelerators, against exhaustive search, a solver and the CPU."""

import itertools

import pytest
import torch
from fake_device import DEVICE, FakeDevice
from torch import Tensor

from vqzoo.numerics.accelerated import torch_residual
from vqzoo.numerics.accelerated.accelerators import TORCH
from vqzoo.numerics.accelerated.torch_residual import (
    encode_residual,
    refit_codebooks,
    train_residual,
)
from vqzoo.numerics.clustering.residual import ResidualClusters, residual_kmeans


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def decoded(clusters: ResidualClusters) -> Tensor:
    batch, stages = clusters.codes.shape[:2]
    codes, books = clusters.codes.cpu().long(), clusters.codebooks.cpu()
    return torch.stack(
        [sum((books[b, t][codes[b, t]] for t in range(stages)), start=torch.zeros(())).T
         for b in range(batch)]
    )  # fmt: skip


def error(points: Tensor, clusters: ResidualClusters, weights: Tensor | None = None) -> float:
    squares = (decoded(clusters) - points).double().square().sum(1)
    return float((squares if weights is None else squares * weights).sum())


def train_on_device(
    points: Tensor, k: int, stages: int, weights: Tensor | None = None
) -> ResidualClusters:
    with FakeDevice():
        w = None if weights is None else weights.to(DEVICE)
        clusters = residual_kmeans(points.to(DEVICE), k, stages, weights=w, iterations=8)
        assert clusters.codes.device == clusters.codebooks.device == DEVICE
        return ResidualClusters(clusters.codebooks.cpu(), clusters.codes.cpu())


@pytest.mark.parametrize(("stages", "k"), [(1, 16), (2, 32), (3, 16)])
def test_error_is_close_to_that_of_the_cpu(stages: int, k: int) -> None:
    points = draw(2, 4, 600)
    clusters = train_on_device(points, k, stages)
    assert clusters.codes.dtype == torch.uint8
    on_cpu = residual_kmeans(points, k, stages, iterations=8)
    assert error(points, clusters) <= 1.05 * error(points, on_cpu)


def test_more_than_256_centroids() -> None:
    clusters = train_on_device(draw(1, 3, 400), 300, 2)
    assert clusters.codes.dtype == torch.int32
    assert clusters.codebooks.shape == (1, 2, 300, 3)


def test_weights_lower_the_weighted_error() -> None:
    points = draw(1, 4, 1000)
    weights = torch.where(torch.arange(1000) % 10 == 0, 100.0, 1.0)[None]
    plain = train_on_device(points, 16, 2)
    weighted = train_on_device(points, 16, 2, weights)
    assert error(points, weighted, weights) < 0.95 * error(points, plain, weights)


def test_training_on_a_sample_encodes_every_point() -> None:
    points = draw(1, 4, 2000)
    with FakeDevice():
        clusters = residual_kmeans(points.to(DEVICE), 16, 2, sample=1000, iterations=8)
        clusters = ResidualClusters(clusters.codebooks.cpu(), clusters.codes.cpu())
    assert clusters.codes.shape == (1, 2, 2000)
    assert error(points, clusters) <= 1.1 * error(points, residual_kmeans(points, 16, 2))


def test_a_beam_as_wide_as_the_codebook_finds_the_best_codes() -> None:
    points, codebooks = draw(2, 3, 200), draw(2, 2, 6, 3)
    clusters = ResidualClusters(codebooks, encode_residual(points, codebooks, 6))
    for b in range(2):
        sums = torch.stack([x + y for x, y in itertools.product(*codebooks[b])])
        best = (points[b].T[:, None] - sums).square().sum(2).amin(1)
        actual = (decoded(clusters) - points)[b].square().sum(0)
        torch.testing.assert_close(actual, best, rtol=1e-4, atol=1e-5)


def test_dividing_the_points_into_parts_changes_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    points, codebooks = draw(3, 3, 100), draw(3, 3, 5, 3)
    whole = encode_residual(points, codebooks, 4)
    monkeypatch.setattr(torch_residual, "SCORES", 300)
    assert encode_residual(points, codebooks, 4).equal(whole)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_refit_comes_close_to_the_least_squares_solution(weighted: bool) -> None:
    points, codebooks = draw(1, 3, 300) * 1e6, draw(1, 2, 4, 3)
    codes = torch.randint(0, 4, (1, 2, 300), generator=torch.Generator().manual_seed(1))
    mass = torch.rand((1, 300), generator=torch.Generator().manual_seed(2)) if weighted else None
    refitted = refit_codebooks(points, mass, codes.to(torch.uint8), codebooks, TORCH)
    design = torch.cat([torch.nn.functional.one_hot(codes[0, t], 4) for t in range(2)], 1).double()
    roots = torch.ones(300).double() if mass is None else mass[0].double().sqrt()
    best = torch.linalg.lstsq(
        design * roots[:, None], points[0].T.double() * roots[:, None], driver="gelsd"
    ).solution
    fitted = design @ refitted[0].reshape(8, 3).double()
    torch.testing.assert_close(fitted, design @ best, rtol=1e-3, atol=1.0)


def test_groups_of_problems_have_the_same_error(monkeypatch: pytest.MonkeyPatch) -> None:
    points = draw(4, 3, 300)
    seen: list[tuple[int, int]] = []

    def train() -> ResidualClusters:
        seen.clear()
        books = train_residual(
            points, None, 8, 2, 0, 4, True, 10, lambda done, total: seen.append((done, total))
        )
        return ResidualClusters(books, encode_residual(points, books, 4))

    together = train()
    assert seen == [(1, 2), (2, 2)]
    monkeypatch.setattr(torch_residual, "VALUES", 2000)
    assert error(points, train()) == pytest.approx(error(points, together), rel=0.05)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_same_seed_same_result() -> None:
    points = draw(2, 3, 300)
    first, second = train_on_device(points, 8, 2), train_on_device(points, 8, 2)
    assert first.codebooks.equal(second.codebooks)
    assert first.codes.equal(second.codes)


def test_further_stages_keep_a_perfect_fit() -> None:
    points = draw(1, 2, 8).repeat(1, 1, 20)
    assert error(points, train_on_device(points, 8, 3)) <= 1e-6

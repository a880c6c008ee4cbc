"""Residual quantization, against exhaustive search and k-means."""

import itertools

import pytest
import torch
from torch import Tensor

from vqzoo.numerics.clustering.kmeans import kmeans
from vqzoo.numerics.clustering.residual import ResidualClusters, residual_kmeans
from vqzoo.numerics.threads import use_threads


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def decoded(clusters: ResidualClusters) -> Tensor:
    batch, stages = clusters.codes.shape[:2]
    return torch.stack(
        [
            sum(clusters.codebooks[b, t][clusters.codes[b, t].long()] for t in range(stages)).T
            for b in range(batch)
        ]
    )


def error(points: Tensor, clusters: ResidualClusters, weights: Tensor | None = None) -> float:
    squares = ((decoded(clusters) - points) ** 2).double().sum(1)
    return float((squares if weights is None else squares * weights).sum())


def test_shapes_and_dtypes() -> None:
    clusters = residual_kmeans(draw(2, 3, 400), 300, 2, iterations=2)
    assert clusters.codebooks.shape == (2, 2, 300, 3)
    assert clusters.codebooks.dtype == torch.float32
    assert clusters.codes.shape == (2, 2, 400)
    assert clusters.codes.dtype == torch.int32
    assert residual_kmeans(draw(1, 3, 400), 256, 1).codes.dtype == torch.uint8


def test_a_beam_as_wide_as_the_codebook_finds_the_best_codes() -> None:
    points = draw(1, 3, 200)
    clusters = residual_kmeans(points, 6, 2, beam=6)
    sums = torch.stack([a + b for a, b in itertools.product(*clusters.codebooks[0])])
    best = ((points[0].T[:, None] - sums) ** 2).sum(2).amin(1)
    actual = ((decoded(clusters) - points)[0] ** 2).sum(0)
    torch.testing.assert_close(actual, best, rtol=1e-4, atol=1e-5)


def test_one_greedy_stage_is_k_means() -> None:
    points = draw(1, 4, 1000)
    clusters = residual_kmeans(points, 32, 1, beam=1, refit=False)
    assert clusters.codebooks[:, 0].equal(kmeans(points, 32).centroids)


def test_stages_beam_and_refit_each_lower_the_error() -> None:
    points = draw(1, 8, 4000)
    one = error(points, residual_kmeans(points, 32, 1))
    greedy = error(points, residual_kmeans(points, 32, 2, beam=1, refit=False))
    beam = error(points, residual_kmeans(points, 32, 2, beam=8, refit=False))
    refit = error(points, residual_kmeans(points, 32, 2, beam=8, refit=True))
    assert refit < beam < greedy < one


def test_weights_lower_the_weighted_error() -> None:
    points = draw(1, 4, 2000)
    weights = torch.where(torch.arange(2000) % 10 == 0, 100.0, 1.0)[None]
    plain = residual_kmeans(points, 16, 2)
    weighted = residual_kmeans(points, 16, 2, weights=weights)
    assert error(points, weighted, weights) < 0.95 * error(points, plain, weights)


@pytest.mark.parametrize("shape", [(3, 4, 500), (1, 4, 40_000)])
def test_same_result_with_any_number_of_threads(shape: tuple[int, ...]) -> None:
    points = draw(*shape)
    results = []
    for threads in (1, 2, 3):
        with use_threads(threads):
            results.append(residual_kmeans(points, 16, 2, iterations=4))
    assert all(r.codebooks.equal(results[0].codebooks) for r in results)
    assert all(r.codes.equal(results[0].codes) for r in results)


def test_training_on_a_sample_encodes_every_point() -> None:
    points = draw(1, 4, 20_000)
    sampled = error(points, residual_kmeans(points, 16, 2, sample=4000))
    assert sampled <= 1.05 * error(points, residual_kmeans(points, 16, 2))


def test_half_precision_is_read_exactly() -> None:
    points = draw(1, 4, 500).bfloat16()
    half, full = residual_kmeans(points, 8, 2), residual_kmeans(points.float(), 8, 2)
    assert half.codebooks.equal(full.codebooks)


def test_as_many_centroids_as_points() -> None:
    points = draw(1, 3, 20)
    assert error(points, residual_kmeans(points, 20, 2)) <= 1e-8


@pytest.mark.parametrize(("stages", "beam"), [(0, 1), (1, 0)])
def test_refuses(stages: int, beam: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        residual_kmeans(draw(1, 2, 9), 3, stages, beam=beam)

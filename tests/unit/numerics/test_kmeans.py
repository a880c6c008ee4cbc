"""Batched k-means, against scikit-learn, brute force and its invariants."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from torch import Tensor

from vqzoo.numerics.clustering.kmeans import Clusters, assign, kmeans, train_codebooks
from vqzoo.numerics.threads import use_threads


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def decoded(clusters: Clusters) -> Tensor:
    index = clusters.codes.long()[:, :, None].expand(-1, -1, clusters.centroids.shape[2])
    return clusters.centroids.gather(1, index).transpose(1, 2)


def error(points: Tensor, clusters: Clusters, weights: Tensor | None = None) -> float:
    squares = ((decoded(clusters) - points.float()) ** 2).double().sum(1)
    return float((squares if weights is None else squares * weights).sum())


def nearest(points: Tensor, centroids: Tensor) -> Tensor:
    return ((points.double()[:, None] - centroids.double()[..., None]) ** 2).sum(2).argmin(1)


@pytest.mark.parametrize("d", [1, 2, 3, 4, 5, 8, 13, 16, 32])
@pytest.mark.parametrize("k", [1, 7, 16, 256, 300])
def test_codes_are_those_of_the_nearest_returned_centroids(d: int, k: int) -> None:
    points = draw(3, d, 333, seed=d)
    clusters = kmeans(points, k, iterations=3)
    assert clusters.centroids.shape == (3, k, d)
    assert clusters.centroids.dtype == torch.float32
    assert clusters.codes.dtype == (torch.uint8 if k <= 256 else torch.int32)
    best = ((points.double() - nearest_points(points, clusters.centroids)) ** 2).sum(1)
    actual = ((points.double() - decoded(clusters)) ** 2).sum(1)
    torch.testing.assert_close(actual, best, rtol=1e-5, atol=1e-6)


def nearest_points(points: Tensor, centroids: Tensor) -> Tensor:
    return decoded(Clusters(centroids, nearest(points, centroids)))


def test_ties_go_to_the_lowest_code() -> None:
    centroids = torch.tensor([[[1.0], [-1.0], [1.0], [3.0]]])
    assert assign(torch.tensor([[[0.0, 1.0, 2.0, -5.0]]]), centroids).tolist() == [[0, 0, 0, 1]]


@pytest.mark.usefixtures("work_sharing")
def test_error_is_that_of_scikit_learn() -> None:
    points = draw(4, 4, 2000)
    clusters = kmeans(points, 64, iterations=50)
    reference = sum(
        KMeans(64, n_init=1, max_iter=50, random_state=0).fit(problem.T.numpy()).inertia_
        for problem in points
    )
    assert error(points, clusters) <= 1.02 * reference


def test_the_best_of_several_seeds_is_the_optimum_of_tiny_problems() -> None:
    points = draw(10, 2, 7)
    runs = [kmeans(points, 2, seed=seed, tolerance=0.0) for seed in range(20)]
    for b in range(10):
        x = points[b].T.double()
        best = min(
            sum(((x[side] - x[side].mean(0)) ** 2).sum().item() for side in (mask, ~mask))
            for bits in itertools.product([False, True], repeat=6)
            if any(bits)
            for mask in [torch.tensor([False, *bits])]
        )
        errors = [
            error(points[b : b + 1], Clusters(run.centroids[b : b + 1], run.codes[b : b + 1]))
            for run in runs
        ]
        assert min(errors) == pytest.approx(best, rel=1e-5)


@pytest.mark.usefixtures("work_sharing")
def test_error_never_rises_with_iterations() -> None:
    points = draw(2, 3, 500)
    errors = [error(points, kmeans(points, 40, iterations=i, tolerance=0.0)) for i in range(15)]
    assert all(after <= before * (1 + 1e-6) for before, after in itertools.pairwise(errors))


@pytest.fixture(params=["a problem a thread", "a problem on all threads"])
def work_sharing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run small problems like large ones as well."""
    if request.param == "a problem on all threads":
        monkeypatch.setattr("vqzoo.numerics.clustering.kmeans.LARGE", 0)


@pytest.mark.usefixtures("work_sharing")
def test_same_result_with_any_number_of_threads() -> None:
    points = draw(3, 4, 5000)
    results = []
    for threads in (1, 2, 3):
        with use_threads(threads):
            results.append(kmeans(points, 32, seed=5))
    for other in results[1:]:
        assert other.centroids.equal(results[0].centroids)
        assert other.codes.equal(results[0].codes)


def test_global_random_state_is_left_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    kmeans(draw(2, 2, 300), 4, sample=100)
    assert torch.get_rng_state().equal(before)


def test_seed_matters() -> None:
    points = draw(1, 4, 1000)
    assert not kmeans(points, 32, seed=0).centroids.equal(kmeans(points, 32, seed=1).centroids)


def test_weights_count_as_repetition() -> None:
    points, repeats = draw(1, 2, 60), torch.arange(60) % 4
    weights = repeats[None].float()
    repeated = points.repeat_interleave(repeats, dim=2)
    best = min(error(repeated, kmeans(repeated, 5, seed=s, tolerance=0.0)) for s in range(20))
    weighted = min(
        error(points, kmeans(points, 5, weights=weights, seed=s, tolerance=0.0), weights)
        for s in range(20)
    )
    assert weighted == pytest.approx(best, rel=0.02)


@pytest.mark.usefixtures("work_sharing")
def test_points_of_weight_zero_move_no_centroid() -> None:
    points, weights = draw(1, 3, 200), torch.ones(1, 200)
    weights[:, 100:] = 0
    moved = points.clone()
    moved[:, :, 100:] += draw(1, 3, 100, seed=9)
    a, b = (kmeans(p, 8, weights=weights, tolerance=0.0) for p in (points, moved))
    torch.testing.assert_close(a.centroids, b.centroids, rtol=1e-4, atol=1e-4)


def test_weights_all_zero_count_as_equal() -> None:
    points = draw(2, 3, 100)
    a = kmeans(points, 8, weights=torch.zeros(2, 100))
    assert a.centroids.equal(kmeans(points, 8).centroids)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_exactly(dtype: torch.dtype) -> None:
    points = draw(2, 4, 500).to(dtype)
    half, full = kmeans(points, 16), kmeans(points.float(), 16)
    assert half.centroids.equal(full.centroids)
    assert half.codes.equal(full.codes)


@pytest.mark.parametrize("scale", [1e-25, 1e-6, 1.0, 1e6, 1e25])
def test_scale_does_not_matter(scale: float) -> None:
    points = draw(1, 4, 500)
    clusters = kmeans((points.double() * scale).float(), 16)
    assert error(points, Clusters(clusters.centroids / scale, clusters.codes)) <= 1.05 * error(
        points, kmeans(points, 16)
    )


def test_an_offset_does_not_matter() -> None:
    points = draw(1, 4, 500)
    moved = kmeans(points + 1000, 16)
    back = Clusters(moved.centroids - 1000, moved.codes)
    assert error(points, back) <= 1.05 * error(points, kmeans(points, 16))


def test_very_many_centroids_start_from_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqzoo.numerics.clustering.kmeans.LARGE", 0)
    points = draw(1, 4, 6000)
    expected = error(points, kmeans(points, 500))
    monkeypatch.setattr("vqzoo.numerics.kernels.lloyd_parallel.SEED_CENTROIDS", 100)
    assert error(points, kmeans(points, 500)) <= 1.05 * expected


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 70), st.integers(0, 99))
def test_with_duplicates_no_cluster_is_wasted(
    distinct: int, d: int, copies: int, seed: int
) -> None:
    points = draw(1, d, distinct, seed=seed).repeat(1, 1, copies)
    assert error(points, kmeans(points, distinct, seed=seed)) <= 1e-6 * distinct * copies


def test_as_many_centroids_as_points_and_more_than_distinct_points() -> None:
    points = draw(1, 3, 50)
    assert error(points, kmeans(points, 50)) <= 1e-8
    same = torch.ones(1, 3, 50)
    clusters = kmeans(same, 50)
    assert bool((clusters.codes == 0).all())
    assert torch.isfinite(clusters.centroids).all()


def test_far_outliers_get_separate_centroids() -> None:
    points = draw(1, 2, 1000)
    points[0, :, 0] = 1e4
    assert error(points, kmeans(points, 8)) < 1000


def test_training_on_a_sample_assigns_every_point() -> None:
    points = draw(1, 4, 20_000)
    clusters = kmeans(points, 16, sample=2000)
    assert clusters.codes.equal(assign(points, clusters.centroids))
    assert error(points, clusters) <= 1.05 * error(points, kmeans(points, 16))


def test_codes_are_those_of_assign() -> None:
    points = draw(3, 5, 777)
    clusters = kmeans(points, 20)
    assert clusters.codes.equal(assign(points, clusters.centroids))


def test_points_need_not_be_contiguous() -> None:
    points = draw(300, 4, 2).permute(2, 1, 0)
    assert kmeans(points, 8).codes.equal(kmeans(points.contiguous(), 8).codes)


@pytest.mark.usefixtures("work_sharing")
def test_progress_ends_at_its_total() -> None:
    seen: list[tuple[int, int]] = []
    kmeans(draw(3, 2, 50), 4, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1]


@pytest.mark.usefixtures("work_sharing")
def test_an_interrupt_is_raised() -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kmeans(draw(3, 2, 50), 4, progress=interrupt)


@pytest.mark.parametrize(
    ("points", "k", "weights", "message"),
    [
        (draw(4, 10), 2, None, "shape"),
        (draw(1, 4, 10), 0, None, "k must"),
        (draw(1, 4, 10), 11, None, "k must"),
        (draw(1, 4, 10), 2, torch.ones(10), "weights"),
        (draw(1, 4, 10), 2, -torch.ones(1, 10), "weights"),
        (draw(1, 4, 10) / 0, 2, None, "finite"),
        (draw(1, 4, 10) * np.nan, 2, None, "finite"),
    ],
)
def test_refuses(points: Tensor, k: int, weights: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kmeans(points, k, weights=weights)


def test_assign_refuses_centroids_of_another_shape() -> None:
    with pytest.raises(ValueError, match="expected"):
        assign(draw(1, 4, 10), draw(1, 2, 3))


@pytest.mark.parametrize("sample", [None, 700])
def test_train_codebooks_returns_the_centroids_of_kmeans(sample: int | None) -> None:
    points, weights = draw(2, 3, 1000), draw(2, 1000, seed=1).abs()
    centroids = kmeans(points, 20, weights=weights, seed=3, sample=sample).centroids
    assert train_codebooks(points, 20, weights=weights, seed=3, sample=sample).equal(centroids)

"""k-means for accelerators with plain torch kernels, against the kernels of the CPU."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vqzoo.numerics.accelerated import torch_kernels, torch_kmeans
from vqzoo.numerics.accelerated.accelerators import TORCH, Kernels
from vqzoo.numerics.accelerated.scaled_points import ScaledPoints, center_points
from vqzoo.numerics.accelerated.torch_kernels import ALL, SQUARES, Part, add_up
from vqzoo.numerics.accelerated.torch_kmeans import assign_torch, train_torch
from vqzoo.numerics.accelerated.torch_seeding import fraction_of, stratified_draws
from vqzoo.numerics.clustering.kmeans import Clusters, assign, kmeans


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(points: Tensor, clusters: Clusters) -> float:
    index = clusters.codes.long()[:, :, None].expand(-1, -1, points.shape[1])
    rebuilt = clusters.centroids.gather(1, index).transpose(1, 2)
    return float((rebuilt - points).double().square().sum())


def train(
    points: Tensor, k: int, weights: Tensor | None = None, seed: int = 0, iterations: int = 25
) -> Clusters:
    centroids = train_torch(points, k, weights, seed, iterations, 1e-5)
    return Clusters(centroids, assign_torch(points, centroids))


@pytest.mark.parametrize("k", [1, 16, 300])
@pytest.mark.parametrize("d", [1, 4, 40])
def test_codes_are_those_of_the_nearest_centroids(d: int, k: int) -> None:
    points, centroids = draw(3, d, 500), draw(3, k, d)
    mine, kernels = assign_torch(points, centroids), assign(points, centroids)
    assert mine.dtype == kernels.dtype
    distances = (points.double()[:, None] - centroids.double()[..., None]).square().sum(2)
    chosen = distances.gather(1, mine.long()[:, None])[:, 0]
    torch.testing.assert_close(chosen, distances.amin(1), rtol=1e-5, atol=1e-6)


def test_ties_go_to_the_lowest_code() -> None:
    centroids = torch.tensor([[[1.0], [-1.0], [1.0], [3.0]]])
    points = torch.tensor([[[0.0, 1.0, 2.0, -5.0]]])
    assert assign_torch(points, centroids).tolist() == [[0, 0, 0, 1]]


@pytest.mark.parametrize(("d", "k"), [(1, 4), (4, 16), (8, 64), (4, 256), (40, 16)])
def test_error_is_close_to_that_of_the_kernels(d: int, k: int) -> None:
    points = draw(4, d, 1000) * 3 + 50
    assert error(points, train(points, k)) <= 1.02 * error(points, kmeans(points, k))


def test_error_never_rises_from_one_iteration_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a patience of 1, which demands that every relocation pays off at once."""
    monkeypatch.setattr(torch_kmeans, "patience", lambda iteration, iterations: 1.0)
    errors: list[Tensor] = []

    def nearest(x: ScaledPoints, centroids: Tensor, with_costs: bool) -> tuple[Tensor, Tensor]:
        codes, costs = TORCH.nearest(x, centroids, with_costs)
        if centroids.shape[1] == 40:
            errors.append(costs.sum(1))
        return codes, costs

    train_torch(draw(2, 3, 500), 40, None, 0, 15, 0.0, kernels=Kernels(nearest, TORCH.add_up))
    assert len(errors) > 5
    for before, after in itertools.pairwise(errors):
        assert bool((after <= before * (1 + 1e-5)).all())


def test_a_relocation_that_did_not_pay_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    points = draw(2, 3, 500)
    monkeypatch.setattr(torch_kmeans, "patience", lambda iteration, iterations: 0.0)
    plain = error(points, train(points, 40, iterations=16))
    reckless = [0.0, 1e-3] * 7 + [0.0]  # almost any move, whatever it costs
    monkeypatch.setattr(torch_kmeans, "patience", lambda iteration, iterations: reckless[iteration])
    assert error(points, train(points, 40, iterations=15)) <= 1.05 * plain


@pytest.mark.parametrize("limit", ["groups of problems", "parts of points"])
def test_groups_of_problems_and_parts_of_points_change_nothing(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = draw(4, 4, 300)
    whole = train(points, 16)
    if limit == "groups of problems":
        monkeypatch.setattr(torch_kmeans, "POINTS", 700)
    else:
        monkeypatch.setattr(torch_kernels, "SCORES", 1000)
    parts = train(points, 16)
    torch.testing.assert_close(parts.centroids, whole.centroids, rtol=1e-3, atol=1e-3)


def test_the_result_of_a_problem_does_not_depend_on_the_others() -> None:
    points = draw(3, 4, 300)
    alone, among = train(points[:1], 16), train(points, 16)
    torch.testing.assert_close(alone.centroids, among.centroids[:1], rtol=1e-5, atol=1e-5)


def test_the_seed_determines_the_result() -> None:
    points = draw(2, 4, 400)
    first = train(points, 32).centroids
    assert train(points, 32).centroids.equal(first)
    assert not train(points, 32, seed=1).centroids.equal(first)


def test_global_random_state_is_left_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    train(draw(2, 2, 300), 4)
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("distinct", [1, 2, 6, 12])
def test_with_duplicates_no_cluster_is_wasted(distinct: int) -> None:
    points = draw(2, 2, distinct).repeat(1, 1, 50)
    assert error(points, train(points, distinct)) <= 1e-6


def test_as_many_centroids_as_points_and_more_than_distinct_points() -> None:
    points = draw(1, 3, 50)
    assert error(points, train(points, 50)) <= 1e-8
    same = train(torch.ones(1, 3, 50), 50)
    assert bool((same.codes == 0).all())
    assert bool(torch.isfinite(same.centroids).all())


def test_points_of_weight_zero_do_not_count() -> None:
    points, weights = draw(1, 3, 200), torch.ones(1, 200)
    weights[:, 100:] = 0
    clusters = train(points, 8, weights)
    near = Clusters(clusters.centroids, clusters.codes[:, :100])
    assert error(points[:, :, :100], near) <= 1.1 * error(
        points[:, :, :100], kmeans(points[:, :, :100], 8)
    )


def test_weights_all_zero_count_as_equal_and_their_scale_does_not_matter() -> None:
    points = draw(2, 3, 100)
    plain = train(points, 8).centroids
    assert train(points, 8, torch.zeros(2, 100)).centroids.equal(plain)
    torch.testing.assert_close(train(points, 8, torch.full((2, 100), 1e20)).centroids, plain)


@pytest.mark.parametrize("scale", [1e-38, 1e-25, 1e6, 1e25])
def test_scale_does_not_matter(scale: float) -> None:
    points = draw(1, 4, 500)
    clusters = train((points.double() * scale).float(), 16)
    unscaled = Clusters((clusters.centroids.double() / scale).float(), clusters.codes)
    assert error(points, unscaled) <= 1.05 * error(points, kmeans(points, 16))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_exactly(dtype: torch.dtype) -> None:
    points = draw(2, 4, 500).to(dtype)
    half, full = train(points, 16), train(points.float(), 16)
    assert half.centroids.equal(full.centroids)
    assert half.codes.equal(full.codes)


def test_points_need_not_be_contiguous() -> None:
    points = draw(300, 4, 2).permute(2, 1, 0)
    assert train(points, 8).codes.equal(train(points.contiguous(), 8).codes)


@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
def test_refuses_points_that_are_not_finite(bad: float) -> None:
    points = draw(2, 2, 9)
    points[1, 0, 3] = bad
    with pytest.raises(ValueError, match="finite"):
        train(points, 3)


@given(st.integers(0, 2**61 - 1), st.integers(0, 2**31 - 1))
def test_a_fraction_of_a_large_integer_is_exact(total: int, drawn: int) -> None:
    fraction = fraction_of(torch.tensor([total]), torch.tensor([drawn]))
    assert int(fraction) == total * drawn >> 31


@given(st.integers(1, 60), st.integers(1, 5), st.integers(0, 99))
def test_each_round_draws_one_number_from_each_equal_part(k: int, batch: int, seed: int) -> None:
    rounds = stratified_draws(seed, 3, batch, k)
    assert sum(drawn.shape[1] for drawn in rounds) == k
    for drawn in rounds:
        m = drawn.shape[1]
        assert bool((drawn * m >> 31 == torch.arange(m)).all())
    last = stratified_draws(seed, 2 + batch, 1, k)
    assert all(one[0].equal(among[-1]) for one, among in zip(last, rounds, strict=True))


@pytest.mark.parametrize("which", ["all", "squares", "upper"])
@pytest.mark.parametrize("weighted", [False, True])
def test_sums_are_those_of_a_loop(which: str, weighted: bool) -> None:
    x = center_points(draw(2, 3, 40))
    codes, axes = torch.arange(80).view(2, 40) % 7, torch.arange(14).view(2, 7) % 3
    borders = draw(2, 7) / 10
    mass = torch.rand(2, 40, generator=torch.Generator().manual_seed(1)) if weighted else None
    part = {"all": ALL, "squares": SQUARES, "upper": Part(axes=axes, borders=borders)}[which]
    sums, counts = add_up(x, mass, codes, 7, part)
    points = x.at(slice(None), slice(None)).double()
    expected, masses = torch.zeros(2, 7, 3).double(), torch.zeros(2, 7).double()
    for b, i in itertools.product(range(2), range(40)):
        j, w = codes[b, i], 1.0 if mass is None else float(mass[b, i])
        if which == "upper" and points[b, axes[b, j], i] <= borders[b, j]:
            continue
        expected[b, j] += w * (points[b, :, i] ** 2 if which == "squares" else points[b, :, i])
        masses[b, j] += w
    torch.testing.assert_close(sums, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(counts, masses, rtol=1e-5, atol=1e-6)

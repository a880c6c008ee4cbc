"""Histograms and codes of numbers on an accelerator, against those of the CPU."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from fake_device import DEVICE, FakeDevice
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vqzoo.numerics.accelerated import torch_histogram
from vqzoo.numerics.accelerated.torch_histogram import bin_edges, bins_on_device
from vqzoo.numerics.arrays import as_float32
from vqzoo.numerics.clustering.scalar.histogram import bins_of
from vqzoo.numerics.clustering.scalar_kmeans import ScalarClusters, assign_scalar, scalar_kmeans


@pytest.fixture(autouse=True)
def _device() -> Iterator[None]:
    with FakeDevice():
        yield


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(values: Tensor, clusters: ScalarClusters, weights: Tensor | None = None) -> float:
    squares = (clusters.centroids.cpu()[clusters.codes.cpu().long()].double() - values) ** 2
    return float((squares if weights is None else squares * weights).sum())


@pytest.mark.parametrize("weighted", [False, True])
def test_bins_agree_with_those_of_the_cpu(weighted: bool) -> None:
    values = draw(100_000) * 0.01
    values[:4] = torch.tensor([3.0, -70.0, 1e9, 0.5])
    weights = torch.rand(100_000, generator=torch.Generator().manual_seed(1)) if weighted else None
    bins = bins_on_device(values, weights)
    on_cpu = bins_of(as_float32(values), None if weights is None else as_float32(weights))
    assert bins.origin == on_cpu.origin
    assert bins.mass.sum() == pytest.approx(on_cpu.mass.sum(), rel=1e-9)
    assert bins.moment.sum() == pytest.approx(on_cpu.moment.sum(), rel=1e-9)
    # The bins are the same except for a few values on borders.
    assert len(bins.mass) == pytest.approx(len(on_cpu.mass), rel=1e-3)
    half = len(bins.mass) // 2
    assert bins.mass[:half].sum() == pytest.approx(on_cpu.mass[:half].sum(), rel=0.01)
    means = bins.moment / bins.mass
    assert bool((np.diff(means) > 0).all())


def test_edges_ascend_and_reach_far() -> None:
    edges = bin_edges(-0.01, 0.03)
    assert edges.shape == (65_537,)
    assert bool((np.diff(edges) > 0).all())
    assert edges[-1] > 1e7


def test_sums_do_not_depend_on_the_order_of_the_values() -> None:
    values = draw(140_000)
    shuffled = values.clone()
    shuffled[1::2] = values[1::2].flip(0)  # the other half is the sample that determines the bins
    first, second = bins_on_device(values, None), bins_on_device(shuffled, None)
    np.testing.assert_array_equal(first.mass, second.mass)
    np.testing.assert_array_equal(first.moment, second.moment)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("n", "exact"), [(500, False), (80_000, False), (80_000, True)])
def test_scalar_kmeans_returns_its_results_on_the_device(
    n: int, exact: bool, dtype: torch.dtype
) -> None:
    values = draw(n // 100, 100).to(dtype)
    clusters = scalar_kmeans(values.to(DEVICE), 16, exact=exact)
    assert clusters.centroids.device == clusters.codes.device == DEVICE
    assert clusters.codes.shape == values.shape
    assert clusters.codes.dtype == torch.uint8
    expected = scalar_kmeans(values, 16, exact=exact)
    assert error(values, clusters) == pytest.approx(error(values, expected), rel=1e-5)


def test_weights_count_on_the_device() -> None:
    values = draw(80_000)
    weights = torch.rand(80_000, generator=torch.Generator().manual_seed(1)) ** 4 * 1e-20
    clusters = scalar_kmeans(values.to(DEVICE), 8, weights=weights.to(DEVICE))
    expected = error(values, scalar_kmeans(values, 8, weights=weights), weights)
    assert error(values, clusters, weights) == pytest.approx(expected, rel=1e-5)


def test_far_outliers_do_not_use_up_the_bins() -> None:
    values = draw(300_000)
    clean = error(values, scalar_kmeans(values.to(DEVICE), 64))
    values[:4] = torch.tensor([1e6, -3e7, 1e9, 2e6])
    assert error(values, scalar_kmeans(values.to(DEVICE), 68)) <= 1.01 * clean


def test_constant_values() -> None:
    values = torch.full((100_000,), 0.3)
    assert error(values, scalar_kmeans(values.to(DEVICE), 16)) <= 1e-9


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("n", [10, 70_000])
def test_refuses_values_that_are_not_finite(n: int, bad: float) -> None:
    values = torch.ones(n)
    values[7] = bad
    with pytest.raises(ValueError, match="finite"):
        scalar_kmeans(values.to(DEVICE), 2)


@given(
    st.lists(st.floats(-1e4, 1e4, width=16), min_size=1, max_size=40),
    st.lists(st.floats(-1e4, 1e4, width=16), min_size=1, max_size=40),
)
def test_assign_returns_the_codes_of_the_cpu(values: list[float], centroids: list[float]) -> None:
    centers = torch.tensor(sorted(centroids), dtype=torch.float32)
    x = torch.tensor(values, dtype=torch.float32)
    codes = assign_scalar(x.to(DEVICE), centers.to(DEVICE))
    assert codes.device == DEVICE
    assert codes.cpu().equal(assign_scalar(x, centers))


def test_dividing_the_values_into_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = draw(70_000).to(DEVICE)
    whole = scalar_kmeans(values, 16)
    monkeypatch.setattr(torch_histogram, "VALUES", 999)
    parts = scalar_kmeans(values, 16)
    assert parts.centroids.cpu().equal(whole.centroids.cpu())
    assert parts.codes.cpu().equal(whole.codes.cpu())

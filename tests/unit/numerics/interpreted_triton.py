"""Triton's kernels in its interpreter, on CPU tensors, against numpy and the CPU's kernels.

`test_triton.py` runs this file in a separate process: the interpreter must be selected before
triton is first imported.
"""

import copy
import importlib
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import vqzoo
from vqzoo.compression.coded_layer import run_from_code
from vqzoo.compression.products import tiles
from vqzoo.compression.products.packed import packed
from vqzoo.numerics.accelerated import (
    products,
    torch_kernels,
    triton_decode,
    triton_kernels,
    triton_products,
)
from vqzoo.numerics.accelerated.accelerators import Kernels
from vqzoo.numerics.accelerated.scaled_points import ScaledPoints, center_points
from vqzoo.numerics.accelerated.torch_kernels import ALL, SQUARES, Part
from vqzoo.numerics.accelerated.torch_kmeans import assign_torch, train_torch
from vqzoo.numerics.clustering.kmeans import Clusters, assign, kmeans
from vqzoo.numerics.decoding.decode import decode_residual
from vqzoo.numerics.decoding.packed import pack, width_of
from vqzoo.plugin.formats import packed_indices
from vqzoo.plugin.manager import installed_plugins

TRITON = Kernels(triton_kernels.nearest, triton_kernels.add_up)
DTYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16])
FEW = settings(max_examples=6)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def unscaled(points: Tensor) -> ScaledPoints:
    return ScaledPoints(points, torch.zeros(points.shape[:2]), torch.ones(points.shape[0]))


@FEW
@given(
    batch=st.integers(1, 3),
    d=st.integers(1, 32),
    n=st.integers(1, 200),
    k=st.sampled_from([1, 2, 15, 16, 17, 256, 257]),
    dtype=DTYPES,
    seed=st.integers(0, 99),
)
def test_codes_and_distances_are_those_of_brute_force(
    batch: int, d: int, n: int, k: int, dtype: torch.dtype, seed: int
) -> None:
    x = center_points((draw(batch, d, n, seed=seed) * 3 + 7).to(dtype))
    centroids = draw(batch, k, d, seed=seed + 1)
    codes, costs = TRITON.nearest(x, centroids, True)
    assert codes.dtype == (torch.uint8 if k <= 256 else torch.int32)
    points = x.at(slice(None), slice(None)).double().numpy()
    differences = points[:, None] - centroids.double().numpy()[..., None]
    distances = (differences**2).sum(2)
    chosen = np.take_along_axis(distances, codes.long().numpy()[:, None], 1)[:, 0]
    np.testing.assert_allclose(chosen, distances.min(1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(costs.numpy(), chosen, rtol=1e-5, atol=1e-6)
    assert TRITON.nearest(x, centroids, False)[0].equal(codes)


@FEW
@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 90), st.integers(0, 99))
def test_the_lowest_of_equally_near_centroids_is_chosen(d: int, k: int, n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randint(-2, 3, (2, d, n), generator=generator).float()
    centroids = torch.randint(-2, 3, (2, k, d), generator=generator).float()
    distances = (points[:, None] - centroids[..., None]).square().sum(2).numpy()
    codes, costs = TRITON.nearest(unscaled(points), centroids, True)
    np.testing.assert_array_equal(codes.numpy(), distances.argmin(1))
    np.testing.assert_array_equal(costs.numpy(), distances.min(1))


@FEW
@given(
    batch=st.integers(1, 3),
    d=st.integers(1, 32),
    n=st.integers(1, 600),
    k=st.sampled_from([1, 7, 256, 300]),
    dtype=DTYPES,
    weighted=st.booleans(),
    which=st.sampled_from(["all", "squares", "upper"]),
    seed=st.integers(0, 99),
)
def test_sums_are_those_of_numpy(
    batch: int,
    d: int,
    n: int,
    k: int,
    dtype: torch.dtype,
    weighted: bool,
    which: str,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = center_points(draw(batch, d, n, seed=seed).to(dtype))
    codes = torch.randint(0, k, (batch, n), generator=generator)
    mass = torch.rand((batch, n), generator=generator) if weighted else None
    axes = torch.randint(0, d, (batch, k), generator=generator)
    borders = torch.randn((batch, k), generator=generator) / 10
    part = {"all": ALL, "squares": SQUARES, "upper": Part(axes=axes, borders=borders)}[which]
    narrow = codes.to(torch.uint8 if k <= 256 else torch.int32)
    sums, counts = TRITON.add_up(x, mass, narrow, k, part)
    points = x.at(slice(None), slice(None)).double().numpy()
    expected, masses = np.zeros((batch, k, d)), np.zeros((batch, k))
    for b in range(batch):
        cluster = codes[b].numpy()
        w = np.ones(n) if mass is None else mass[b].double().numpy()
        if which == "upper":
            coordinate = points[b, axes[b].numpy()[cluster], np.arange(n)]
            w = w * (coordinate > borders[b].numpy()[cluster])
        values = points[b] ** 2 if which == "squares" else points[b]
        np.add.at(expected[b], cluster, (values * w).T)
        np.add.at(masses[b], cluster, w)
    np.testing.assert_allclose(sums.numpy(), expected, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(counts.numpy(), masses, rtol=1e-6, atol=1e-6)


def test_sums_do_not_depend_on_the_order_of_the_points() -> None:
    points, codes = draw(2, 3, 700), torch.arange(1400).view(2, 700) % 5
    order = torch.randperm(700, generator=torch.Generator().manual_seed(1))
    x = unscaled(points / 10)
    shuffled = ScaledPoints((points / 10)[:, :, order], x.offset, x.scale)
    first = TRITON.add_up(x, None, codes.to(torch.uint8), 5, ALL)
    second = TRITON.add_up(shuffled, None, codes[:, order].to(torch.uint8), 5, ALL)
    assert first[0].equal(second[0])
    assert first[1].equal(second[1])


def test_sums_of_the_largest_coordinates_do_not_overflow() -> None:
    x = unscaled(torch.full((1, 1, 1000), 4.0))
    sums, _ = TRITON.add_up(x, None, torch.zeros((1, 1000), dtype=torch.uint8), 1, SQUARES)
    assert sums.item() == 16_000


@pytest.mark.parametrize("permuted", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (0, 2, 1)])
def test_points_may_have_any_strides(permuted: tuple[int, int, int]) -> None:
    shape = [0, 0, 0]
    for place, length in zip(permuted, (3, 4, 150), strict=True):
        shape[place] = length
    points = draw(*shape).permute(permuted)
    centroids = draw(3, 20, 4)
    expected = assign_torch(points.contiguous(), centroids, TRITON)
    assert assign_torch(points, centroids, TRITON).equal(expected)


def test_nan_gets_a_valid_code() -> None:
    codes = assign_torch(torch.full((1, 2, 3), torch.nan), draw(1, 20, 2), TRITON)
    assert codes.tolist() == [[0, 0, 0]]


def test_assign_returns_the_codes_of_the_cpu() -> None:
    points, centroids = draw(2, 4, 300), draw(2, 40, 4)
    assert assign_torch(points, centroids, TRITON).equal(assign(points, centroids))


def error(points: Tensor, centroids: Tensor) -> float:
    clusters = Clusters(centroids, assign(points, centroids))
    index = clusters.codes.long()[:, :, None].expand(-1, -1, points.shape[1])
    return float((centroids.gather(1, index).transpose(1, 2) - points).square().sum())


@pytest.mark.parametrize(("d", "k", "weighted"), [(1, 4, False), (4, 12, True), (10, 5, False)])
def test_the_training_error_is_that_of_the_cpu_and_torch(d: int, k: int, weighted: bool) -> None:
    points = draw(2, d, 120) * 2 - 5
    weights = torch.rand((2, 120), generator=torch.Generator().manual_seed(2)) + 0.5
    mass = weights if weighted else None
    centroids = train_torch(points, k, mass, 0, 5, 1e-3, kernels=TRITON)
    plain = train_torch(points, k, mass, 0, 5, 1e-3)
    on_cpu = kmeans(points, k, weights=mass, iterations=5).centroids
    assert error(points, centroids) <= 1.05 * error(points, on_cpu)
    assert error(points, centroids) == pytest.approx(error(points, plain), rel=0.03)
    assert centroids.equal(train_torch(points, k, mass, 0, 5, 1e-3, kernels=TRITON))


def test_triton_and_torch_find_the_same_codes() -> None:
    for d, k in itertools.product((2, 9), (5, 270)):
        x = center_points(draw(1, d, 280))
        centroids = x.pick(torch.arange(k)[None])
        codes, costs = TRITON.nearest(x, centroids, True)
        expected = torch_kernels.nearest(x, centroids, True)
        assert codes.equal(expected[0])
        assert bool((costs[0, :k] == 0).all())


@FEW
@given(
    s=st.integers(1, 40),
    stages=st.integers(1, 3),
    m=st.integers(1, 70),
    d=st.integers(1, 40),
    k=st.sampled_from([1, 200, 300]),
    shared=st.booleans(),
    dtype=DTYPES,
    seed=st.integers(0, 99),
)
def test_decoding_equals_that_of_the_cpu(
    s: int, stages: int, m: int, d: int, k: int, shared: bool, dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, k, (s, stages, m), generator=generator)
    codes = codes.to(torch.uint8 if k <= 256 else torch.int32)
    codebooks = draw(1 if shared else s, stages, k, d, seed=seed).to(dtype)
    out = torch.full((m, s * d + 3), torch.nan)
    triton_decode.decode_blocks(codes, codebooks, out[:, 1 : s * d + 1])
    expected = decode_residual(codes, codebooks, torch.empty(m, s * d))
    assert out[:, 1 : s * d + 1].equal(expected)
    assert bool(out[:, [0, -2, -1]].isnan().all())


@settings(max_examples=12)
@given(
    m=st.integers(1, 40),
    n=st.integers(1, 300),
    k=st.sampled_from([1, 2, 3, 4, 15, 16, 17, 256]),
    inputs=st.integers(1, 8),
    grid=st.booleans(),
    seed=st.integers(0, 99),
)
def test_products_with_scalars_are_those_of_numpy(
    m: int, n: int, k: int, inputs: int, grid: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, k, (m, n), generator=generator).to(torch.uint8)
    table = torch.arange(k).float() - k // 2 if grid else draw(k, seed=seed)
    x, width = draw(inputs, n, seed=seed + 1), width_of(k)
    held = codes if width == 8 else pack(codes, width, 1)
    zero = k // 2 if grid else None
    product = triton_products.multiply_scalars(x, held, width, table, zero)
    expected = x.double().numpy() @ table.double().numpy()[codes.numpy()].T
    assert product.shape == expected.shape
    assert np.abs(product.numpy() - expected).max() <= 1e-5 * max(np.abs(expected).max(), 1)


@settings(max_examples=12)
@given(
    s=st.integers(1, 40),
    stages=st.integers(1, 2),
    m=st.integers(1, 90),
    d=st.integers(1, 5),
    k=st.sampled_from([1, 2, 4, 16, 200, 300]),
    inputs=st.integers(1, 8),
    shared=st.booleans(),
    seed=st.integers(0, 99),
)
def test_products_with_blocks_are_those_of_numpy(
    s: int, stages: int, m: int, d: int, k: int, inputs: int, shared: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, k, (s, stages, m), generator=generator)
    books = draw(1 if shared else s, stages, k, d, seed=seed)
    x, width = draw(inputs, s * d, seed=seed + 1), width_of(k)
    held = codes.to(torch.uint8) if width == 8 else pack(codes, width, 0)
    product = triton_products.multiply_residual(x, held, books, width)
    narrow = codes.to(torch.uint8 if k <= 256 else torch.int32)
    matrix = decode_residual(narrow, books, torch.empty(m, s * d)).double().numpy()
    expected = x.double().numpy() @ matrix.T
    assert product.shape == expected.shape
    assert np.abs(product.numpy() - expected).max() <= 1e-5 * max(np.abs(expected).max(), 1)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("km", {"k": 16}),
        ("km", {"k": 100}),
        ("pq", {"k": 16, "d": 4}),
        ("rq", {"k": 16, "d": 4}),
        ("binary", {}),
        ("rtn", {"format": "int4"}),
        ("rtn", {"format": "int8"}),
    ],
    ids=str,
)
def test_layers_multiply_by_the_kernels(
    method: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the layer to the kernels, as on CUDA: the device's type alone is another one here."""
    torch.manual_seed(0)
    small = vqzoo.compress(torch.nn.Linear(66, 40), method, layers="all", **options)
    decoded, plugins = copy.deepcopy(small.module), installed_plugins()
    code = packed(small.layers[0].compressed, plugins)
    item = plugins.method(method).item
    assert "cuda" in item.multiply_devices
    calls = []

    def scalars(x: Tensor, codes: Tensor, width: int, table: Tensor, zero: int | None) -> Tensor:
        calls.append("scalars")
        return triton_products.multiply_scalars(x, codes, width, table, zero)

    monkeypatch.setattr(packed_indices, "multiply_scalars", scalars)
    monkeypatch.setattr(packed_indices, "takes_inputs", lambda *_: True)
    monkeypatch.setattr(tiles, "MOST_KEPT", 0)

    def residual(x: Tensor, codes: Tensor, codebooks: Tensor, width: int = 8) -> Tensor:
        calls.append("residual")
        return triton_products.multiply_residual(x, codes, codebooks, width)

    blocks = importlib.import_module("vqzoo_vq.block_products")
    monkeypatch.setattr(blocks, "multiply_residual", residual)
    layer = run_from_code(small.module, "", code, plugins)
    x = torch.randn(3, 66)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), decoded(x), rtol=1e-4, atol=1e-5)
    assert calls


def test_products_on_a_device_are_left_to_decoding_without_triton() -> None:
    x, codes = torch.zeros(1, 8), torch.zeros(4, 8, dtype=torch.uint8)
    assert products.multiply_scalars_on_device(x, codes, 8, torch.zeros(4), None) is None
    books = torch.zeros(1, 1, 4, 2)
    blocks = torch.zeros(4, 1, 8, dtype=torch.uint8)
    assert products.multiply_residual_on_device(x, blocks, books, 8) is None

"""The built-in methods against numpy, scikit-learn, brute force and the papers' formulas."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from quantizing import fitted, quantize
from sklearn.cluster import KMeans  # type: ignore[import-untyped]
from torch import Tensor

from vqzoo.compression.measures.distortion import matrix_error
from vqzoo.plugin import Code, Indices
from vqzoo.plugin.manager import installed_plugins


def weights(m: int, n: int, seed: int = 0) -> Tensor:
    return torch.randn(m, n, generator=torch.Generator().manual_seed(seed)) * 0.05


def decoded(name: str, code: Code) -> Tensor:
    return installed_plugins().quantizers.get(name).item.decode(code, code.floats())


def squared_error(name: str, weight: Tensor, code: Code) -> float:
    return float((weight - decoded(name, code)).double().square().sum())


def sqnr(name: str, weight: Tensor, code: Code) -> float:
    decibels = matrix_error(weight, decoded(name, code)).sqnr_db
    assert decibels is not None
    return decibels


def lloyd_error(points: np.ndarray, k: int) -> float:
    """The squared error of the best of three runs of scikit-learn."""
    k = min(k, len(np.unique(points, axis=0)))
    return float(KMeans(k, n_init=3, random_state=0).fit(points).inertia_)


@pytest.mark.parametrize("k", [2, 3, 16])
def test_km_is_as_good_as_scikit_learn(k: int) -> None:
    weight = weights(40, 60)
    code = quantize("km", weight, k=k, dtype="float32", scale="none")
    reference = lloyd_error(weight.reshape(-1, 1).double().numpy(), k)
    assert squared_error("km", weight, code) <= reference * 1.01


@pytest.mark.parametrize("k", [1, 2, 3])
def test_exact_km_is_the_optimum_on_a_tiny_case(k: int) -> None:
    weight = weights(2, 4, seed=3)
    values = np.sort(weight.reshape(-1).double().numpy())
    optimum = min(
        sum(float(((part - part.mean()) ** 2).sum()) for part in np.split(values, list(cuts)))
        for cuts in itertools.combinations(range(1, 8), k - 1)
    )
    code = quantize("km", weight, k=k, exact=True, dtype="float32", scale="none")
    assert squared_error("km", weight, code) == pytest.approx(optimum, rel=1e-3, abs=1e-12)


@pytest.mark.parametrize("name", ["km", "pq"])
def test_every_code_is_that_of_the_nearest_stored_centroid(name: str) -> None:
    """The nearest after the codebook has been rounded to float16, not before."""
    weight = weights(30, 24)
    options: dict[str, Any] = {"k": 12, "scale": "none"} | ({"d": 3} if name == "pq" else {})
    code = quantize(name, weight, **options)
    book = code.floats()["codebook"].reshape(12, -1)
    points = weight.reshape(-1, book.shape[1])
    nearest = torch.cdist(points.double(), book.double()).amin(dim=1)
    actual = (points - decoded(name, code).reshape(-1, book.shape[1])).double().norm(dim=1)
    torch.testing.assert_close(actual, nearest, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("axis", "shape"), [("columns", (60, 22)), ("rows", (22, 60))])
def test_pq_with_a_codebook_a_block_is_as_good_as_scikit_learn(
    axis: str, shape: tuple[int, int]
) -> None:
    """Blocks of 4 and a tail of 2, each clustered separately."""
    weight = weights(*shape)
    code = quantize(
        "pq", weight, d=4, k=8, axis=axis, codebook="block", dtype="float32", scale="none"
    )
    across = (weight if axis == "columns" else weight.T).double().numpy()
    reference = sum(lloyd_error(across[:, b : b + 4], 8) for b in range(0, across.shape[1], 4))
    assert squared_error("pq", weight, code) <= reference * 1.05


def test_pq_with_one_codebook_is_as_good_as_scikit_learn() -> None:
    weight = weights(60, 40)
    code = quantize("pq", weight, d=4, k=16, codebook="layer", dtype="float32", scale="none")
    reference = lloyd_error(weight.reshape(-1, 4).double().numpy(), 16)
    assert squared_error("pq", weight, code) <= reference * 1.05


def test_rq_of_whole_rows_in_one_stage_is_k_means_on_rows() -> None:
    weight = weights(80, 6)
    code = quantize("rq", weight, d=0, stages=1, k=8, dtype="float32", scale="none")
    reference = lloyd_error(weight.double().numpy(), 8)
    assert squared_error("rq", weight, code) <= reference * 1.05


def test_the_residual_of_rq_falls_with_every_stage() -> None:
    weight = weights(64, 32)
    errors = [
        squared_error("rq", weight, quantize("rq", weight, d=4, stages=stages, k=16))
        for stages in (1, 2, 3, 4)
    ]
    assert all(later < 0.7 * before for before, later in itertools.pairwise(errors))


LADDERS = [
    ("km", "k", [2, 4, 16, 64, 256], {}),
    ("pq", "k", [1, 2, 8, 32, 128], {"d": 2}),
    ("pq", "d", [8, 4, 2, 1], {"k": 16}),
    ("rq", "k", [2, 8, 32, 128], {"d": 4}),
    ("svd", "rank", [1, 4, 16, 32], {}),
    ("rtn", "format", ["int2", "int3", "int4", "int5", "int6", "int7", "int8", "fp16"], {}),
    ("rtn", "per", ["tensor", "row", "group"], {"format": "int4", "group": 8}),
    ("binary", "scale", ["none", "tensor", "row"], {}),
]


@pytest.mark.parametrize(("name", "option", "steps", "others"), LADDERS)
def test_the_error_falls_along_a_ladder_of_options(
    name: str, option: str, steps: list[object], others: dict[str, Any]
) -> None:
    weight = weights(48, 32) * torch.linspace(0.5, 2, 48)[:, None]
    ratios = [sqnr(name, weight, quantize(name, weight, **{option: s, **others})) for s in steps]
    assert all(later > before for before, later in itertools.pairwise(ratios)), ratios


@pytest.mark.parametrize("scale", ["tensor", "row"])
def test_scales_of_binary_are_least_squares(scale: str) -> None:
    weight = weights(20, 30) * torch.linspace(0.1, 3, 20)[:, None]
    code = quantize("binary", weight, scale=scale)
    signs = np.where(weight.numpy() >= 0, 1.0, -1.0)
    scales = code.floats()["scale"].double().numpy()
    rows = weight.double().numpy()
    if scale == "tensor":
        best = [np.linalg.lstsq(signs.reshape(-1, 1), rows.reshape(-1), rcond=None)[0][0]]
    else:
        best = [
            np.linalg.lstsq(s[:, None], w, rcond=None)[0][0]
            for s, w in zip(signs, rows, strict=True)
        ]
    np.testing.assert_allclose(scales, best, rtol=2**-11)


def test_binary_without_a_scale_is_the_sign() -> None:
    weight = torch.tensor([[0.3, -0.2, 0.0], [-5.0, 1e-20, -1e-20]])
    code = quantize("binary", weight, scale="none")
    assert decoded("binary", code).tolist() == [[1, -1, 1], [-1, 1, -1]]


@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (1, 8)])
@pytest.mark.parametrize("rank", [1, 3, 20])
def test_the_error_of_svd_is_that_of_the_dropped_singular_values(
    shape: tuple[int, int], rank: int
) -> None:
    weight = weights(*shape)
    code = quantize("svd", weight, rank=rank, dtype="float32")
    values = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    tail = float((values[rank:] ** 2).sum())
    energy = float((values**2).sum())
    assert squared_error("svd", weight, code) == pytest.approx(tail, rel=1e-4, abs=energy * 1e-11)


@pytest.mark.parametrize("falls", [1.0, 1.05, 1.3, 2.0])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e15])
def test_svd_is_optimal_for_any_decay_and_size_of_the_singular_values(
    falls: float, size: float
) -> None:
    random = np.random.default_rng(0)
    left, _ = np.linalg.qr(random.standard_normal((60, 60)))
    right, _ = np.linalg.qr(random.standard_normal((90, 60)))
    values = falls ** -np.arange(60.0)
    weight = torch.from_numpy((size * (left * values) @ right.T).astype(np.float32))
    code = quantize("svd", weight, rank=10, dtype="float32")
    exact = np.linalg.svd(weight.double().numpy() / size, compute_uv=False)
    error = float(((decoded("svd", code) - weight).double() / size).square().sum())
    assert error == pytest.approx((exact[10:] ** 2).sum(), rel=1e-4, abs=1e-11)


@pytest.mark.parametrize("energy", [0.1, 0.5, 0.9, 1.0])
def test_svd_keeps_the_smallest_rank_that_reaches_an_energy(energy: float) -> None:
    weight = weights(24, 40)
    rank = quantize("svd", weight, energy=energy).floats()["left"].shape[1]
    kept = np.cumsum(np.linalg.svd(weight.double().numpy(), compute_uv=False) ** 2)
    kept /= kept[-1]
    assert kept[rank - 1] >= energy - 1e-6
    assert rank == 1 or kept[rank - 2] < energy


def test_svd_of_a_matrix_of_low_rank_is_exact() -> None:
    weight = weights(40, 3) @ weights(3, 50, seed=1)
    code = quantize("svd", weight, rank=3, dtype="float32")
    torch.testing.assert_close(decoded("svd", code), weight, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("per", ["tensor", "row", "group"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_rtn_is_within_half_a_step(bits: int, per: str) -> None:
    weight = weights(20, 50) * torch.linspace(0.1, 3, 20)[:, None]
    code = quantize("rtn", weight, format=f"int{bits}", per=per, group=16)
    groups = {"tensor": (20, 50), "row": (1, 50), "group": (1, 16)}[per]
    top = 2 ** (bits - 1) - 1
    result = decoded("rtn", code)
    for i in range(0, 20, groups[0]):
        for j in range(0, 50, groups[1]):
            part = (slice(i, i + groups[0]), slice(j, j + groups[1]))
            peak = float(weight[part].abs().max())
            # float16 rounds the step by up to 2^-11, which shifts the largest weight `top` times
            half = peak / top * (0.5 + top * 2**-11) * (1 + 2**-10)
            assert float((weight[part] - result[part]).abs().max()) <= half
            assert len(result[part].unique()) <= 2 * top + 1


@pytest.mark.parametrize(("bits", "top"), [(4, 7), (8, 127)])
def test_rtn_reproduces_weights_on_its_grid(bits: int, top: int) -> None:
    grid = torch.arange(-top, top + 1, dtype=torch.float32)[None] * 2.0**-7
    code = quantize("rtn", grid, format=f"int{bits}")
    assert torch.equal(decoded("rtn", code), grid)
    integers = code.parts["codes"]
    assert isinstance(integers, Indices)
    assert integers.bits == bits
    assert integers.values.tolist() == [list(range(2 * top + 1))]


def test_rtn_fp16_is_a_cast_to_half_precision() -> None:
    weight = weights(9, 9)
    code = quantize("rtn", weight, format="fp16")
    assert torch.equal(decoded("rtn", code), weight.half().float())


@pytest.mark.parametrize(
    ("name", "options"), [("km", {"k": 64}), ("pq", {"k": 64, "d": 2}), ("rq", {"k": 32, "d": 4})]
)
def test_row_scales_keep_small_rows(name: str, options: dict[str, Any]) -> None:
    """With rows over six orders of magnitude, a single codebook serves only the large ones."""
    weight = weights(48, 64) * torch.logspace(0, -6, 48)[:, None]

    def row_sqnr(scale: str) -> float:
        code = quantize(name, weight, scale=scale, **options)
        decibels = matrix_error(weight, decoded(name, code)).row_sqnr_db
        assert decibels is not None
        return decibels

    even = weights(48, 64)
    usual = sqnr(name, even, quantize(name, even, scale="none", **options))
    assert row_sqnr("row") > usual - 1.5
    assert row_sqnr("none") < 3


def test_row_scales_are_least_squares() -> None:
    weight = weights(16, 40) * torch.logspace(0, -3, 16)[:, None]
    for name in ("km", "pq", "rq"):
        result = decoded(name, quantize(name, weight, k=4, scale="row")).double()
        exact = weight.double()
        factor = (exact * result).sum(dim=1) / result.square().sum(dim=1)
        torch.testing.assert_close(factor, torch.ones(16).double(), rtol=2**-10, atol=0)


def paper_bits(name: str, m: int, n: int, **options: object) -> float:
    quantizer = installed_plugins().quantizers.get(name).item
    bits = quantizer.paper_bits(m, n, quantizer.Options(**options))
    assert bits is not None
    return bits


def test_paper_bits_follow_the_formulas_of_the_papers() -> None:
    m, n = 4096, 9216
    for k in (2, 16, 256, 1000):
        assert paper_bits("km", m, n, k=k) == 32 * k + m * n * math.log2(k)
        for d in (1, 4, 8):
            s = n // d
            each = 32 * k * n + m * s * math.log2(k)
            assert paper_bits("pq", m, n, k=k, d=d, codebook="block") == pytest.approx(each)
            shared = 32 * k * d + m * s * math.log2(k)
            assert paper_bits("pq", m, n, k=k, d=d, codebook="layer") == pytest.approx(shared)
            by_rows = 32 * k * m + n * (m // d) * math.log2(k)
            bits = paper_bits("pq", m, n, k=k, d=d, codebook="block", axis="rows")
            assert bits == pytest.approx(by_rows)
            for t in (1, 3):
                bits = paper_bits("rq", m, n, k=k, d=d, stages=t, codebook="layer")
                assert bits == pytest.approx(t * shared)
        for t in (1, 2, 4):
            whole = t * (32 * k * n + m * math.log2(k))
            assert paper_bits("rq", m, n, k=k, d=0, stages=t) == pytest.approx(whole)
    assert paper_bits("binary", m, n) == m * n
    assert paper_bits("svd", m, n, rank=300) == 32 * 300 * (m + n + 1)


@pytest.mark.parametrize("codebook", ["block", "layer"])
@pytest.mark.parametrize(("name", "axis"), [("pq", "columns"), ("pq", "rows"), ("rq", "columns")])
def test_the_tail_is_quantized_without_padding(name: str, axis: str, codebook: str) -> None:
    """23 is 5 blocks of 4 and a tail of 3, which is quantized like a separate matrix."""
    long = weights(23, 31) if axis == "rows" else weights(31, 23)
    options: dict[str, Any] = {
        "k": 8, "d": 4, "codebook": codebook, "dtype": "float32", "scale": "none"
    }  # fmt: skip
    if name == "pq":
        options["axis"] = axis
    code = quantize(name, long, **options)
    stages = 2 if name == "rq" else 1
    tail_codes = code.parts["codes_tail"]
    assert isinstance(tail_codes, Indices)
    assert tail_codes.values.numel() == 31 * stages
    assert code.floats()["codebook_tail"].shape[-2:] == (8, 3)
    assert code.floats()["codebook"].numel() == stages * 8 * 4 * (5 if codebook == "block" else 1)
    alone = long[20:] if axis == "rows" else long[:, 20:]
    alone_code = quantize(name, alone.contiguous(), **{**options, "d": 3})
    matrix = decoded(name, code)
    tail = matrix[20:] if axis == "rows" else matrix[:, 20:]
    assert torch.equal(tail, decoded(name, alone_code))


def test_a_ratio_is_reached_on_a_layer_with_a_tail() -> None:
    entry = installed_plugins().quantizers.get("pq").item
    weight = weights(100, 103)
    options = entry.options_for(100, 103, 12.0, {})
    assert options is not None
    code, _, _ = fitted(entry, weight, options.model_dump())
    stored = sum(
        math.ceil(p.values.numel() * p.bits / 8) if isinstance(p, Indices) else p.stored.nbytes
        for p in code.parts.values()
    )
    assert 4 * 100 * 103 / stored >= 12

"""DiBA-Greedy against brute force and numpy, and the method that stores its factors."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quantizing import fitted, layer_context, quantize
from torch import Tensor
from vqzoo_diba.diagonals import core_correction, row_factors
from vqzoo_diba.flips import flip_bits
from vqzoo_diba.solver import DiagonalBinary, DibaStep, solve_diba

from vqzoo.compression.decode import decode
from vqzoo.compression.products.packed import packed
from vqzoo.numerics.threads import use_threads
from vqzoo.plugin import Code, Floats, Indices, MethodCode, stored_bits
from vqzoo.plugin.manager import installed_plugins

DIBA = installed_plugins().quantizers.get("diba").item


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def binary(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, shape, generator=generator, dtype=torch.uint8)


def planted(m: int, k: int, n: int, seed: int = 0) -> DiagonalBinary:
    """Factors with diagonals of either sign, away from zero."""
    signs = [2.0 * binary(size, seed=seed + i) - 1 for i, size in enumerate((m, k, n))]
    sizes = [1 + normal(size, seed=seed + i).abs() for i, size in enumerate((m, k, n))]
    d1, d2, d3 = (sign * size for sign, size in zip(signs, sizes, strict=True))
    return DiagonalBinary(d1, binary(m, k, seed=seed + 3), d2, binary(k, n, seed=seed + 4), d3)


def product64(factors: DiagonalBinary) -> Tensor:
    left = factors.d1.double()[:, None] * factors.b1
    return (left * factors.d2.double()) @ (factors.b2 * factors.d3.double())


def squared(matrix: Tensor) -> float:
    return float(matrix.double().square().sum())


def steps_of(matrix: Tensor, k: int, **options: float) -> list[DibaStep]:
    steps: list[DibaStep] = []
    solve_diba(matrix, k, report=steps.append, **options)
    return steps


@given(
    m=st.integers(1, 12),
    n=st.integers(1, 12),
    k=st.integers(1, 20),
    seed=st.integers(0, 99),
    exponent=st.sampled_from([-100, -3, 0, 5, 100]),
)
@settings(max_examples=15)
def test_the_error_never_rises(m: int, n: int, k: int, seed: int, exponent: int) -> None:
    """At every step, and the reported error is that of the factors at that step."""
    matrix = normal(m, n, seed=seed) * 2.0**exponent
    steps = steps_of(matrix.float(), k, seed=seed)
    unit = 4.0**-exponent
    assert all(b.error <= a.error for a, b in itertools.pairwise(steps))
    for step in steps:
        real = squared((matrix.double() - product64(step.factors)) * 2.0**-exponent)
        assert step.error * unit == pytest.approx(real, rel=1e-3, abs=1e-5)


def test_every_half_step_lowers_the_error_of_a_large_matrix() -> None:
    """With more components than a group and more rows than a task."""
    matrix = normal(300, 260)
    steps = steps_of(matrix, 200, iterations=4, tolerance=0)
    assert [step.name for step in steps[-5:]] == [
        "flip B1",
        "fit D1",
        "flip B2",
        "fit D3",
        "fit D2",
    ]
    assert all(b.error < a.error for a, b in itertools.pairwise(steps))
    real = squared(matrix - product64(steps[-1].factors))
    assert steps[-1].error == pytest.approx(real, rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_flips_are_those_of_exact_tests(seed: int) -> None:
    """The bits are those of flipping one after the other by the recomputed error."""
    matrix, factors = normal(9, 14, seed=seed), normal(11, 14, seed=seed + 1)
    scales, bits = normal(9, seed=seed + 2), binary(9, 11, seed=seed + 3)

    def error(trial: Tensor) -> float:
        return squared(matrix.double() - (scales[:, None] * trial).double() @ factors.double())

    expected = bits.clone()
    flipped = True
    while flipped:
        flipped = False
        for i, j in itertools.product(range(9), range(11)):
            trial = expected.clone()
            trial[i, j] ^= 1
            if error(trial) < error(expected) * (1 - 1e-9):
                expected, flipped = trial, True
    residual = matrix - (scales[:, None] * bits) @ factors
    flip_bits(residual, scales, bits, factors)
    assert torch.equal(bits, expected)
    recomputed = matrix.double() - (scales[:, None] * bits).double() @ factors.double()
    torch.testing.assert_close(residual.double(), recomputed, rtol=1e-4, atol=1e-4)


def test_rows_of_scale_zero_keep_their_bits() -> None:
    residual, bits = normal(4, 6), binary(4, 5)
    scales = torch.tensor([0.0, 1.0, 0.0, 1.0])
    bits_before, residual_before = bits.clone(), residual.clone()
    flip_bits(residual, scales, bits, normal(5, 6, seed=1))
    assert torch.equal(bits[::2], bits_before[::2])
    assert torch.equal(residual[::2], residual_before[::2])


def test_row_factors_are_least_squares() -> None:
    matrix, approximation = normal(8, 30), normal(8, 30, seed=1)
    approximation[2] = 0
    factors = row_factors(matrix, approximation)
    for i in range(8):
        column = approximation[i, :, None].double().numpy()
        best = np.linalg.lstsq(column, matrix[i].double().numpy(), rcond=None)[0].item()
        assert float(factors[i]) == pytest.approx(1.0 if i == 2 else best, rel=1e-5)


def lstsq_core(matrix: Tensor, left: Tensor, right: Tensor) -> tuple[np.ndarray, float]:
    """D2 by numpy from the (m·n, k) design matrix, and its error."""
    design = torch.einsum("ij,jl->ilj", left.double(), right.double()).flatten(0, 1).numpy()
    target = matrix.double().flatten().numpy()
    best = np.linalg.lstsq(design, target, rcond=None)[0]
    return best, float(np.square(target - design @ best).sum())


def test_the_core_is_least_squares() -> None:
    matrix, left, right = normal(20, 15), normal(20, 12, seed=1), normal(12, 15, seed=2)
    best, _ = lstsq_core(matrix, left, right)
    np.testing.assert_allclose(core_correction(matrix, left, right), best, rtol=1e-3, atol=1e-5)


def test_a_singular_core_is_least_squares() -> None:
    """With two equal components and one of zeros."""
    matrix, left, right = normal(20, 15), normal(20, 9, seed=1), normal(9, 15, seed=2)
    left[:, 4], right[4] = left[:, 3], right[3]
    left[:, 7] = 0
    _, least = lstsq_core(matrix, left, right)
    core = core_correction(matrix, left, right)
    assert torch.isfinite(core).all()
    error = squared(matrix.double() - (left * core).double() @ right.double())
    assert error == pytest.approx(least, rel=1e-5)


def binaries(shape: tuple[int, int]) -> Iterator[Tensor]:
    """All binary matrices of a shape."""
    for bits in itertools.product((0, 1), repeat=shape[0] * shape[1]):
        yield torch.tensor(bits, dtype=torch.uint8).reshape(shape)


@pytest.mark.parametrize("seed", range(3))
def test_a_tiny_matrix_against_all_binary_factors(seed: int) -> None:
    """One component. The least error of all pairs of binaries with D1 = D3 = 1 is an upper bound
    for the best of a few seeds; that of the best matrix of rank one is a lower bound."""
    matrix = normal(3, 3, seed=seed)
    bound = min(
        lstsq_core(matrix, b1.float(), b2.float())[1]
        for b1 in binaries((3, 1))
        for b2 in binaries((1, 3))
    )
    best = min(steps_of(matrix, 1, seed=s)[-1].error for s in range(20))
    assert best <= bound * (1 + 1e-5)
    rank_one = squared(matrix) - float(torch.linalg.svdvals(matrix.double())[0] ** 2)
    assert best >= rank_one * (1 - 1e-5)


def test_planted_factors_of_rank_one_are_found() -> None:
    """Rows and columns whose planted bits are zero are zero; the others are d1·d2·d3ᵀ."""
    matrix = product64(planted(16, 1, 12)).float()
    steps = steps_of(matrix, 2, tolerance=0)
    assert steps[-1].error < 1e-6 * squared(matrix)


def test_a_matrix_of_two_values_is_found() -> None:
    matrix = 0.25 * (2.0 * binary(24, 1) - 1) * (2.0 * binary(1, 20, seed=1) - 1)
    best = min(steps_of(matrix, 4, seed=s, tolerance=0)[-1].error for s in range(3))
    assert best < 1e-8 * squared(matrix)


def test_planted_factors_are_nearly_found() -> None:
    """With four times the planted components, the error is a tenth of that of Gaussian weights."""
    matrix, weights = product64(planted(40, 4, 40, seed=5)).float(), normal(40, 40)
    planted_error, gaussian_error = (
        min(steps_of(target, 16, seed=s)[-1].error for s in range(6)) / squared(target)
        for target in (matrix, weights)
    )
    assert planted_error < 0.05
    assert planted_error < 0.11 * gaussian_error


def test_zero_rows_and_columns_stay_zero() -> None:
    matrix = normal(20, 18)
    matrix[3] = 0
    matrix[:, 7] = 0
    code = quantize("diba", matrix, k=40)
    rebuilt = decode(MethodCode("diba", code), installed_plugins())
    assert not rebuilt[3].any()
    assert not rebuilt[:, 7].any()
    assert squared(matrix - rebuilt) < squared(matrix)


def test_a_matrix_of_zeros_is_zero() -> None:
    assert not solve_diba(torch.zeros(5, 4), 3).matrix().any()


def test_zero_components_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        solve_diba(normal(3, 3), 0)


def test_factors_depend_on_the_seed_and_not_on_threads() -> None:
    matrix = normal(300, 280)
    solutions = []
    for threads in (1, 3):
        with use_threads(threads):
            solutions.append(solve_diba(matrix, 150, seed=3, iterations=2))
    other = solve_diba(matrix, 150, seed=4, iterations=2)
    for name in ("d1", "b1", "d2", "b2", "d3"):
        assert torch.equal(getattr(solutions[0], name), getattr(solutions[1], name))
    assert not torch.equal(solutions[0].b1, other.b1)


def test_progress_rises_to_its_total() -> None:
    calls: list[tuple[int, int]] = []
    solve_diba(normal(300, 40), 20, iterations=3, progress=lambda *at: calls.append(at))
    assert len({total for _, total in calls}) == 1
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1][0] == calls[-1][1]
    assert len(calls) > 16  # passes of flips, at least one task of each on the calling thread


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_code_holds_the_factors_of_the_solver(dtype: str) -> None:
    """The bits as they are, and the diagonals, rounded by up to 2⁻¹¹ of each value in float16."""
    matrix = normal(30, 20)
    factors = solve_diba(matrix, 25, seed=0, iterations=20, tolerance=2e-3)
    code, options, _ = fitted(DIBA, matrix, {"k": 25, "dtype": dtype})
    assert torch.equal(code.indices("left"), factors.b1)
    assert torch.equal(code.indices("right"), factors.b2)
    bound = 2e-3 if dtype == "float16" else 0
    for name, exact in (("rows", factors.d1), ("core", factors.d2), ("columns", factors.d3)):
        assert ((code.floats()[name] - exact).abs() <= bound * exact.abs()).all()
    size = 16 if dtype == "float16" else 32
    bits = size * (30 + 25 + 20) + 8 * ((30 * 25 + 7) // 8 + (25 * 20 + 7) // 8)
    assert stored_bits(code) == DIBA.stored_bits(30, 20, options) == bits


def test_paper_bits_follow_the_formula_of_the_paper() -> None:
    options = DIBA.Options(k=100)
    assert DIBA.paper_bits(64, 48, options) == 32 * (64 + 100 + 48) + 100 * (64 + 48)


@pytest.mark.parametrize("ratio", [4, 6, 8, 12, 16, 24])
def test_a_ratio_is_met_closely(ratio: float) -> None:
    """On a matrix of AlexNet's size, k is less than half a percent below the largest that fits."""
    m, n = 4096, 9216
    options = DIBA.options_for(m, n, ratio, {})
    reached = 32 * m * n / DIBA.stored_bits(m, n, options)
    assert ratio <= reached < 1.005 * ratio


def test_more_components_have_less_error() -> None:
    matrix = normal(64, 48)
    errors = [steps_of(matrix, k)[-1].error for k in (1, 4, 16, 64, 128)]
    assert all(later < before for before, later in itertools.pairwise(errors))
    expected = [DIBA.expected_error(64, 48, DIBA.Options(k=k)) for k in (1, 4, 16, 64, 128)]
    assert expected == sorted(expected, reverse=True)


def test_apply_multiplies_by_the_factors() -> None:
    """`apply` equals x·Wᵀ, and only the diagonals are trainable."""
    matrix = normal(24, 31)
    code = DIBA.quantize(matrix, DIBA.Options(k=20), layer_context((24, 31)))
    assert set(DIBA.trainable(code)) == {"rows", "core", "columns"}
    params = {name: value.requires_grad_() for name, value in code.floats().items()}
    x = normal(2, 3, 31, seed=1)
    direct = x @ DIBA.reconstruct(code, params).T
    through = DIBA.apply(code, params, x)
    torch.testing.assert_close(through, direct, rtol=1e-4, atol=1e-4)
    through.square().sum().backward()
    assert all(bool(value.grad.any()) for value in params.values())


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize(
    ("m", "k", "n"), [(24, 20, 31), (5, 700, 900), (900, 700, 5), (600, 500, 530)]
)
def test_products_and_decoding_by_bits(m: int, k: int, n: int, packs: bool) -> None:
    """Factors are above and below what is decoded at a time; bytes divide their widths or not."""
    factors = planted(m, k, n)
    parts: dict[str, Indices | Floats] = {
        "left": Indices(factors.b1, 2),
        "right": Indices(factors.b2, 2),
        "rows": Floats.of(factors.d1, "float32"),
        "core": Floats.of(factors.d2, "float32"),
        "columns": Floats.of(factors.d3, "float32"),
    }
    compressed = MethodCode("diba", Code((m, n), parts))
    expected = product64(factors)
    code = packed(compressed, installed_plugins()).code if packs else compressed.code
    tolerance = 1e-5 * float(expected.abs().max())
    assert (DIBA.decode(code, code.floats()) - expected).abs().max() <= tolerance
    for inputs in (1, 7, 50):
        x = normal(inputs, n)
        product = DIBA.multiply(code, code.floats(), x)
        answer = x.double() @ expected.T
        assert (product - answer).abs().max() <= 1e-5 * float(answer.abs().max())


def test_tuning_the_diagonals_lowers_the_output_error() -> None:
    """DiBARD: gradient steps on the diagonals, with fixed binary factors."""
    matrix, x = normal(24, 31), normal(200, 31, seed=1) * torch.linspace(0.1, 3, 31)
    code = quantize("diba", matrix, k=24)
    params = list(code.floats().items())
    losses = []
    for _ in range(60):
        leaves = {name: value.requires_grad_() for name, value in params}
        loss = (DIBA.apply(code, leaves, x) - x @ matrix.T).square().mean()
        slopes = torch.autograd.grad(loss, list(leaves.values()))
        params = [
            (name, (value - 0.02 * slope / slope.norm()).detach())
            for (name, value), slope in zip(params, slopes, strict=True)
        ]
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.99 * losses[0]

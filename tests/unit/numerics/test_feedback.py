"""Error feedback against a naive reference that solves for the columns left at each step."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vqzoo.numerics.feedback.blocks import feed_back_blocks
from vqzoo.numerics.feedback.elimination import eliminate
from vqzoo.numerics.feedback.layer import feedback_loss, feedback_of, times_hessian
from vqzoo.numerics.feedback.levels import Levels, feed_back_levels


def problem(m: int, n: int, groups: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A matrix (m, n), and correlated second moments (groups, n, n) of low rank."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(groups, n, n, generator=generator)
    inputs = mixing @ torch.randn(groups, n, max(1, n // 2), generator=generator)
    return torch.randn(m, n, generator=generator), inputs @ inputs.mT / inputs.shape[2]


def loss(error: Tensor, hessian: Tensor, damping: float) -> float:
    """tr(E H Eᵀ) with the damped H of each group."""
    ridge = damping * hessian.diagonal(dim1=1, dim2=2).mean(1)
    damped = hessian.double() + ridge[:, None, None] * torch.eye(hessian.shape[1])
    by_group = error.double().unflatten(0, (len(hessian), -1))
    return float(((by_group @ damped) * by_group).sum())


def rounded(columns: Tensor, block: Tensor, metric: Tensor) -> Tensor:
    return block.mul(2).round().div(2)


def naive(matrix: Tensor, hessian: Tensor, damping: float, width: int) -> np.ndarray:
    """Round blocks of columns; after each, minimize over the free columns in closed form."""
    order = eliminate([hessian], damping, width).order.numpy()
    values = matrix.double().numpy().copy()
    target = values.copy()
    m = len(values) // len(hessian)
    for group, second_moment in enumerate(hessian.double().numpy()):
        n = len(second_moment)
        damped = second_moment + damping * second_moment.trace() / n * np.eye(n)
        for row in range(group * m, group * m + m):
            for start in range(0, n, width):
                done, free = order[: start + width], order[start + width :]
                block = order[start : start + width]
                values[row, block] = np.round(values[row, block] * 2) / 2
                error = target[row, done] - values[row, done]
                push = np.linalg.solve(
                    damped[np.ix_(free, free)], damped[np.ix_(free, done)] @ error
                )
                values[row, free] = target[row, free] + push
    return values


@pytest.mark.parametrize(("groups", "width"), [(1, 1), (1, 3), (3, 1), (2, 4)])
def test_it_is_the_optimum_over_the_columns_left(groups: int, width: int) -> None:
    matrix, hessian = problem(6, 11, groups)
    elimination = eliminate([hessian], 0.1, width)
    values = feed_back_blocks(matrix, elimination, width, rounded)
    assert np.allclose(values.numpy(), naive(matrix, hessian, 0.1, width), atol=1e-4)


@given(st.integers(1, 8), st.integers(1, 40), st.integers(1, 5), st.integers(0, 100))
def test_every_error_costs_what_its_metric_says(m: int, n: int, width: int, seed: int) -> None:
    """The loss of the result is the sum of the blocks' own costs: nothing else is paid."""
    matrix, hessian = problem(m, n, seed=seed)
    paid = 0.0

    def choose(columns: Tensor, block: Tensor, metric: Tensor) -> Tensor:
        nonlocal paid
        error = (block - rounded(columns, block, metric)).double()
        paid += float(((error @ metric[0].double()) * error).sum())
        return rounded(columns, block, metric)

    values = feed_back_blocks(matrix, eliminate([hessian], 0.1, width), width, choose)
    assert paid == pytest.approx(loss(matrix - values, hessian, 0.1), rel=1e-2, abs=1e-6)


@given(st.integers(0, 1000))
def test_feedback_lowers_the_loss_of_rounding(seed: int) -> None:
    matrix, hessian = problem(16, 24, seed=seed)
    values = feed_back_blocks(matrix, eliminate([hessian], 0.1), 1, rounded)
    plain = matrix.mul(2).round().div(2)
    assert loss(matrix - values, hessian, 0.1) < loss(matrix - plain, hessian, 0.1)


@pytest.mark.parametrize("width", [1, 5])
def test_without_correlations_it_is_plain_rounding(width: int) -> None:
    matrix, _ = problem(7, 300)
    hessian = torch.linspace(1, 2, 300).diag()[None]
    values = feed_back_blocks(matrix, eliminate([hessian], 0.0, width), width, rounded)
    assert torch.equal(values, matrix.mul(2).round().div(2))


def test_blocks_of_the_hessian_are_one_that_is_zero_between_them() -> None:
    _, hessian = problem(5, 20)
    whole = torch.block_diag(hessian[0, :12, :12], hessian[0, 12:, 12:])[None]
    parts = eliminate([hessian[:, :12, :12], hessian[:, 12:, 12:]], 0.1)
    one = eliminate([whole], 0.1)
    assert torch.equal(parts.order, one.order)
    assert torch.allclose(parts.factor, one.factor)


def test_columns_come_by_falling_moments_and_a_short_block_last() -> None:
    hessian = torch.tensor([1.0, 5, 2, 2, 9, 9, 30]).diag()[None]
    assert eliminate([hessian], 0.01).order.tolist() == [6, 4, 5, 1, 2, 3, 0]
    assert eliminate([hessian], 0.01, 2).order.tolist() == [4, 5, 0, 1, 2, 3, 6]


def test_a_singular_hessian_needs_damping_and_an_unseen_group_none() -> None:
    _, hessian = problem(1, 6)
    with pytest.raises(ValueError, match="damping"):
        eliminate([-hessian], 0.0)
    silent = torch.cat([hessian, torch.zeros(1, 6, 6)])
    factor = eliminate([silent], 0.1).factor
    assert torch.equal(factor[1], torch.eye(6))


@given(st.integers(1, 12), st.integers(1, 3), st.floats(1e-3, 1e3), st.integers(0, 100))
def test_a_ridge_completes_the_square(n: int, groups: int, share: float, seed: int) -> None:
    """(w - q) H (w - q)ᵀ + ρ ‖q‖² is (w' - q)(H + ρI)(w' - q)ᵀ and a number without q."""
    matrix, hessian = problem(2 * groups, n, groups, seed)
    means = hessian.double().diagonal(dim1=1, dim2=2).mean(1)
    ridge = share * means * torch.arange(1, groups + 1)
    elimination = eliminate([hessian], 0.1, ridge=ridge)
    shrunk = elimination.shrunk(matrix).double().numpy()
    for row in range(2 * groups):
        second_moment = hessian[row // 2].double().numpy()
        rho = float(ridge[row // 2])
        damped = second_moment + 0.1 * np.trace(second_moment) / n * np.eye(n)
        expected = np.linalg.solve(damped + rho * np.eye(n), damped @ matrix[row].double().numpy())
        assert np.allclose(shrunk[row], expected, atol=1e-3 * float(matrix[row].norm()))
        conditional = 1 / np.linalg.inv(damped + rho * np.eye(n)).diagonal()[elimination.order[0]]
        free = float(elimination.free_metric[row // 2, 0])
        assert free == pytest.approx(conditional - rho, rel=1e-3)


def test_without_a_ridge_nothing_shrinks_nor_where_no_input_was_seen() -> None:
    matrix, hessian = problem(4, 6)
    assert eliminate([hessian], 0.1).shrunk(matrix) is matrix
    silent = torch.cat([hessian, torch.zeros(1, 6, 6)])
    elimination = eliminate([silent], 0.1, ridge=torch.tensor([2.0, 3.0]))
    shrunk = elimination.shrunk(matrix)
    assert elimination.ridge.tolist() == [2, 0]
    assert torch.equal(shrunk[2:], matrix[2:])
    assert shrunk[:2].square().sum() < matrix[:2].square().sum()


@pytest.mark.parametrize(("groups", "n"), [(1, 300), (4, 11), (8, 1)])
@pytest.mark.parametrize("sparse", [False, True])
def test_the_kernel_of_shared_levels_is_feedback_with_the_nearest(
    groups: int, n: int, sparse: bool
) -> None:
    matrix, hessian = problem(16, n, groups)
    generator = torch.Generator().manual_seed(3)
    steps = torch.rand(16, 2, generator=generator)
    steps[3] = 0
    kept = torch.rand(16, n, generator=generator) < 0.5 if sparse else None
    values = torch.tensor([-2.0, -0.5, 0.25, 1.5])
    levels = Levels(values, steps, torch.arange(n) % 2, kept)
    seen = torch.empty_like(matrix)

    def choose(columns: Tensor, block: Tensor, metric: Tensor) -> Tensor:
        seen[:, columns] = block
        some = levels.columns(columns)
        return some.of(some.nearest(block))

    feedback = feedback_of([hessian])
    expected = feedback.quantize(matrix, choose)
    chosen = feed_back_levels(matrix, feedback, levels)
    assert torch.allclose(levels.of(chosen.codes), expected)
    assert torch.allclose(chosen.targets, seen, atol=1e-4)
    assert matrix.equal(problem(16, n, groups)[0])
    if kept is not None:
        assert not chosen.codes[~kept].any()


@pytest.mark.parametrize("width", [1, 3, 4])
def test_parts_meet_where_sub_vectors_do(width: int) -> None:
    matrix, hessian = problem(6, 20, 2)
    cut = [hessian[:, :9, :9], hessian[:, 9:, 9:]]
    feedback = feedback_of(cut, width)
    border = -(-9 // width) * width
    assert feedback.starts == (0, border)
    whole = torch.stack([torch.block_diag(*blocks) for blocks in zip(*cut, strict=True)])
    halves = [whole[:, :border, :border], whole[:, border:, border:]]
    values = feedback.quantize(matrix, rounded)
    for half, part in zip(halves, (slice(0, border), slice(border, 20)), strict=True):
        alone = feed_back_blocks(matrix[:, part], eliminate([half], 0.1, width), width, rounded)
        assert torch.equal(values[:, part], alone)
    metrics = feedback.block_metrics()
    assert [metric.shape[0] * metric.shape[2] for metric in metrics] == [
        20 // width * width, *([20 % width] if 20 % width else []),
    ]  # fmt: skip
    if width == 1:
        assert torch.allclose(metrics[0][:, :, 0, 0].T, feedback.column_metric(), rtol=1e-4)


def test_the_loss_is_that_of_each_group_and_block() -> None:
    error, hessian = problem(6, 20, 2)
    weights = torch.arange(6.0)
    cut = [hessian[:, :9, :9], hessian[:, 9:, 9:]]
    expected = 0.0
    for row in range(6):
        for block, columns in zip(cut, (slice(0, 9), slice(9, 20)), strict=True):
            e, h = error[row, columns].double(), block[row // 3].double()
            assert torch.allclose(
                times_hessian(error, cut)[row, columns].double(), e @ h, atol=1e-4
            )
            expected += row * float(e @ h @ e)
    assert feedback_loss(error, cut, weights) == pytest.approx(expected, rel=1e-4)


def test_a_group_that_saw_nothing_costs_next_to_nothing() -> None:
    _, hessian = problem(1, 6)
    metric = feedback_of([torch.cat([1e-3 * hessian, torch.zeros(1, 6, 6)])]).column_metric()
    assert float(metric[1].max()) < 0.1 * float(metric[0].min())

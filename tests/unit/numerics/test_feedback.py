"""Error feedback against a naive reference that solves for the columns left at each step."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vqzoo.numerics.feedback.blocks import feed_back_blocks
from vqzoo.numerics.feedback.elimination import eliminate


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

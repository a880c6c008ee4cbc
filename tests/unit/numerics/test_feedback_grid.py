"""Error feedback onto a grid, plain and with a trellis."""

from itertools import product

import numpy as np
import pytest
import torch

from vqzoo.numerics.feedback.elimination import eliminate
from vqzoo.numerics.feedback.grid import Grid, feed_back_grid, levels, walk
from vqzoo.numerics.feedback.rates import Rates, free, laplacian

GENERATOR = torch.Generator().manual_seed(0)
INPUTS = torch.randn(300, 40, generator=GENERATOR) @ torch.randn(40, 40, generator=GENERATOR)
HESSIAN = (INPUTS.T @ INPUTS / 300)[None]
WEIGHT = torch.randn(150, 40, generator=GENERATOR)


def grid(step: float, trellis: bool) -> Grid:
    return Grid(np.full(150, step, np.float32), np.ones(40, np.float32), 60, trellis)


def loss(values: torch.Tensor) -> float:
    error = (values - WEIGHT).double()
    return float(((error @ HESSIAN[0].double()) * error).sum())


def quantized(step: float, trellis: bool, price: float = 1e-9) -> tuple[np.ndarray, torch.Tensor]:
    rates = laplacian(3.0, 150, 40, 60) if price > 1e-6 else free(150, 40, 60)
    codes = feed_back_grid(
        WEIGHT, eliminate([HESSIAN], 0.01), grid(step, trellis), np.ones(150), price, rates
    )
    return codes, levels(torch.from_numpy(codes + 60), 60, trellis) * step


def test_codes_without_a_price_are_those_of_columns_rounded_one_after_another() -> None:
    elimination = eliminate([HESSIAN], 0.01)
    rest, factor = WEIGHT[:, elimination.order].double(), elimination.factor[0].double()
    expected = torch.empty_like(rest)
    for j in range(40):
        expected[:, j] = (rest[:, j] / 0.25).round()
        error = (rest[:, j] - 0.25 * expected[:, j]) / factor[j, j]
        rest[:, j + 1 :] -= error[:, None] * factor[j, j + 1 :]
    codes, _ = quantized(0.25, trellis=False)
    assert np.mean(codes != expected[:, elimination.place].numpy()) < 0.005  # ties in float32


@pytest.mark.parametrize("trellis", [False, True])
def test_feedback_errs_less_than_rounding(trellis: bool) -> None:
    """Rounding has the spacing of one quantizer: two steps with a trellis."""
    spacing = 0.5 if trellis else 0.25
    _, values = quantized(0.25, trellis)
    assert loss(values) < 0.8 * loss((WEIGHT / spacing).round() * spacing)


def test_a_trellis_errs_less_at_the_same_number_of_levels_a_code() -> None:
    """Codes of a trellis are two steps apart in each quantizer."""
    _, plain = quantized(0.5, trellis=False)
    _, walked = quantized(0.25, trellis=True)
    assert loss(walked) < 0.85 * loss(plain)


def test_a_price_buys_smaller_codes_at_more_error() -> None:
    cheap, near = quantized(0.25, trellis=False)
    dear, far = quantized(0.25, trellis=False, price=0.05)
    assert np.abs(dear).mean() < np.abs(cheap).mean()
    assert loss(far) > loss(near)


def test_levels_in_torch_are_those_of_the_kernel() -> None:
    codes = torch.randint(0, 9, (300, 7), generator=GENERATOR)
    expected = levels(codes, 4, trellis=True)
    assert torch.equal(walk(codes - 4), expected)


# The machine of ISO/IEC 15938-17: state -> the next one after an even and after an odd code.
MACHINE = [(0, 2), (7, 5), (1, 3), (6, 4), (2, 0), (5, 7), (3, 1), (4, 6)]


def walked(column: tuple[int, ...]) -> list[tuple[int, int]]:
    """(level, quantizer) of each code of a column, by the definition."""
    state, pairs = 0, []
    for i, code in enumerate(column):
        state = 0 if i % 128 == 0 else state
        odd = state % 2
        pairs.append((2 * code - odd * ((code > 0) - (code < 0)), odd))
        state = MACHINE[state][code % 2]
    return pairs


def cost(column: tuple[int, ...], values: np.ndarray, step: float, weight: float, bits) -> float:
    pairs = walked(column)
    errors = sum((v - step * level) ** 2 for v, (level, _) in zip(values, pairs, strict=True))
    return 0.5 * weight * errors + sum(
        bits[odd, code + 3] for code, (_, odd) in zip(column, pairs, strict=True)
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_trellis_finds_the_cheapest_of_all_walks(seed: int) -> None:
    random = np.random.default_rng(seed)
    values, weight, step = random.normal(0, 1, 5), 3.0, 0.6
    bits = -np.log2(random.dirichlet(np.array([1, 3, 9, 20, 9, 3, 1.0]), 2))[None, None]
    bits = np.minimum(bits, 12).astype(np.float32)
    codes = feed_back_grid(
        torch.from_numpy(values[:, None]).float(),
        eliminate([torch.ones(1, 1, 1)], 0.0),
        Grid(np.full(5, step, np.float32), np.ones(1, np.float32), 3, trellis=True),
        np.full(5, weight),
        1.0,
        Rates(bits, np.zeros(5, np.int32), np.zeros(1, np.int32)),
    )
    every = (
        cost(walk, values, step, weight, bits[0, 0]) for walk in product(range(-3, 4), repeat=5)
    )
    chosen = cost(tuple(codes[:, 0].tolist()), values, step, weight, bits[0, 0])
    assert chosen == pytest.approx(min(every), rel=1e-4)


def test_codes_with_a_price_are_the_cheapest_of_all() -> None:
    """One column: nothing is fed back."""
    values = np.linspace(-4, 4, 200)
    price, step = 0.2, 0.7
    rates = laplacian(0.8, 200, 1, 9)
    codes = feed_back_grid(
        torch.from_numpy(values[:, None]).float(),
        eliminate([torch.full((1, 1, 1), 2.0)], 0.0),
        Grid(np.full(200, step, np.float32), np.ones(1, np.float32), 9, trellis=False),
        np.full(200, 1.5),
        price,
        rates,
    )
    every = np.arange(-9, 10)
    costs = 0.5 * 1.5 * 2.0 * (values[:, None] - step * every) ** 2 + price * rates.bits[0, 0, 0]
    taken = costs[np.arange(200), codes[:, 0] + 9]
    assert np.allclose(taken, costs.min(1), rtol=1e-4)


def test_the_choice_leaves_out_what_a_ridge_asks_for_small_codes() -> None:
    """One column: the cheapest by the definition, on weights that are not shrunk."""
    values, price, step = np.linspace(-4, 4, 200), 0.2, 0.7
    rates = laplacian(0.8, 200, 1, 9)
    elimination = eliminate([torch.full((1, 1, 1), 2.0)], 0.0, ridge=torch.tensor([3.0]))
    codes = feed_back_grid(
        elimination.shrunk(torch.from_numpy(values[:, None]).float()),
        elimination,
        Grid(np.full(200, step, np.float32), np.ones(1, np.float32), 9, trellis=False),
        np.full(200, 1.5),
        price,
        rates,
    )
    every = np.arange(-9, 10)
    costs = 0.5 * 1.5 * 2.0 * (values[:, None] - step * every) ** 2 + price * rates.bits[0, 0, 0]
    assert np.allclose(costs[np.arange(200), codes[:, 0] + 9], costs.min(1), rtol=1e-4)


@pytest.mark.parametrize("trellis", [False, True])
def test_a_ridge_lowers_error_and_bits_together_at_low_rates(trellis: bool) -> None:
    price, step = 3.0, 3.0 if trellis else 4.0
    rates = laplacian(0.1, 150, 40, 60)
    center = rates.bits[0, 0, 0]

    def cost(share: float) -> float:
        ridge = torch.tensor([share * price / np.log(2)])  # of normal weights of variance 1
        elimination = eliminate([HESSIAN], 0.01, ridge=ridge)
        codes = feed_back_grid(
            elimination.shrunk(WEIGHT), elimination, grid(step, trellis), np.ones(150), price, rates
        )
        values = levels(torch.from_numpy(codes + 60), 60, trellis) * step
        return 0.5 * loss(values) + price * float(center[codes + 60].sum())

    assert cost(1.0) < 0.97 * cost(0.0)


def test_levels_are_those_of_the_machine() -> None:
    codes = torch.randint(-4, 5, (300, 7), generator=GENERATOR)
    columns = [[level for level, _ in walked(tuple(column))] for column in codes.T.tolist()]
    assert levels(codes + 4, 4, trellis=True).T.tolist() == columns
    assert torch.equal(levels(codes + 4, 4, trellis=False), codes.float())

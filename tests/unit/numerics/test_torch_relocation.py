"""Mergers and splits in parallel, against the definition of the error."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vqzoo.numerics.accelerated import torch_relocation
from vqzoo.numerics.accelerated.torch_relocation import cheapest_mergers, relocate, split_gains


def clusters(batch: int, k: int, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points (batch, n, 2), their codes, and whether each is in the upper half of its cluster."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn((batch, n, 2), generator=generator, dtype=torch.float64)
    codes = torch.randint(0, k, (batch, n), generator=generator)
    return points, codes, torch.rand((batch, n), generator=generator) > 0.5


def sums_of(points: Tensor, codes: Tensor, k: int, which: Tensor) -> tuple[Tensor, Tensor]:
    members = torch.nn.functional.one_hot(codes, k).double() * which[..., None]
    return members.transpose(1, 2) @ points, members.sum(1)


def energy(sums: Tensor, counts: Tensor) -> Tensor:
    """(batch,): the error minus the sum of the points' squares."""
    return -(sums.square().sum(2) / counts.clamp(min=1e-30)).sum(1)


@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 200))
def test_with_a_patience_of_one_the_error_never_rises(k: int, n: int, seed: int) -> None:
    points, codes, upper = clusters(3, k, n, seed)
    sums, counts = sums_of(points, codes, k, torch.ones_like(upper))
    halves = sums_of(points, codes, k, upper)
    after_sums, after_counts, moves = relocate(sums, counts, *halves, torch.ones(3, 1))
    before, after = energy(sums, counts), energy(after_sums, after_counts)
    assert bool((after <= before + 1e-5).all())
    assert bool((after[moves == 0] == before[moves == 0]).all())
    torch.testing.assert_close(after_counts.sum(1), counts.sum(1))
    torch.testing.assert_close(after_sums.sum(1), sums.sum(1))


def test_gains_and_costs_are_differences_of_the_error() -> None:
    points, codes, upper = clusters(1, 4, 30, 0)
    sums, counts = sums_of(points, codes, 4, torch.ones_like(upper))
    upper_sums, upper_counts = sums_of(points, codes, 4, upper)
    base = energy(sums, counts)
    gains = split_gains(sums, counts, upper_sums, upper_counts)
    costs, partners = cheapest_mergers(sums, counts)
    for j in range(4):
        apart = torch.cat([sums, upper_sums[:, j : j + 1]], 1)
        masses = torch.cat([counts, upper_counts[:, j : j + 1]], 1)
        apart[:, j] -= upper_sums[:, j]
        masses[:, j] -= upper_counts[:, j]
        assert float(base - energy(apart, masses)) == pytest.approx(float(gains[0, j]))
        merged = []
        for other in range(4):
            together, total = sums.clone(), counts.clone()
            together[:, other] += together[:, j]
            total[:, other] += total[:, j]
            together[:, j], total[:, j] = 0, 0
            merged.append(float(energy(together, total) - base) if other != j else torch.inf)
        assert merged[int(partners[0, j])] == pytest.approx(min(merged))
        assert float(costs[0, j]) == pytest.approx(min(merged), rel=1e-4)


def test_empty_clusters_are_filled_at_no_cost() -> None:
    points = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [8.0, 0.0], [9.0, 0.0]]]).double()
    codes, upper = torch.tensor([[0, 0, 0, 0]]), torch.tensor([[False, False, True, True]])
    sums, counts = sums_of(points, codes, 3, torch.ones_like(upper))
    halves = sums_of(points, codes, 3, upper)
    after, masses, moves = relocate(sums, counts, *halves, torch.ones(1, 1))
    assert moves.tolist() == [1]
    assert masses.tolist() == [[2.0, 2.0, 0.0]]
    assert after[0, :2].tolist() == [[1.0, 0.0], [17.0, 0.0]]


def test_dividing_the_pairs_into_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    points, codes, upper = clusters(3, 9, 60, 1)
    sums, counts = sums_of(points, codes, 9, torch.ones_like(upper))
    whole = cheapest_mergers(sums, counts)
    monkeypatch.setattr(torch_relocation, "PAIRS", 20)
    parts = cheapest_mergers(sums, counts)
    assert parts[0].equal(whole[0])
    assert parts[1].equal(whole[1])

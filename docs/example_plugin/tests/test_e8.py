"""The contract in one line; the mathematics against brute force."""

import torch
from vqzoo_e8.grid import magnitudes, nearest, points
from vqzoo_e8.quantizer import LatticeOptions, LatticeQuantizer
from vqzoo_e8.rotation import rotate, rotate_back, sign_rows

from vqzoo.testing import check_quantizer


def test_the_contract() -> None:
    check_quantizer(LatticeQuantizer)


def test_the_points_are_distinct_and_of_the_shifted_lattice() -> None:
    grid = points()
    assert grid.shape == (65536, 8)
    assert torch.unique(grid, dim=0).shape == grid.shape
    shift = torch.where(torch.arange(65536) < 32768, 0.25, -0.25)[:, None]
    doubled = 2 * (grid - shift)
    assert torch.equal(doubled % 2, torch.ones_like(doubled))  # odd multiples of 1/2
    assert torch.equal((doubled.sum(1) / 2) % 2, torch.zeros(65536))  # adding up to even numbers
    assert (magnitudes().square().sum(1) <= 10).sum() == 227


def test_the_nearest_point_is_the_nearest() -> None:
    vectors = torch.randn(300, 8, generator=torch.Generator().manual_seed(0)) * 1.5
    distances = (points()[nearest(vectors)] - vectors).square().sum(1)
    least = torch.cdist(vectors.double(), points().double()).min(1).values.square()
    torch.testing.assert_close(distances.double(), least, rtol=1e-5, atol=1e-5)


def test_rotate_back_inverts_rotate_and_both_keep_lengths() -> None:
    generator = torch.Generator().manual_seed(0)
    for n in (1, 2, 3, 8, 11, 96, 363):
        matrix = torch.randn(5, n, generator=generator)
        signs = 1.0 - 2 * torch.randint(2, (sign_rows(n), n), generator=generator)
        rotated = rotate(matrix, signs)
        torch.testing.assert_close(rotated.square().sum(1), matrix.square().sum(1))
        torch.testing.assert_close(rotate_back(rotated, signs), matrix)


def test_an_outlier_is_spread_over_all_columns() -> None:
    for n in (64, 100):
        signs = torch.ones(sign_rows(n), n)
        spike = torch.zeros(1, n)
        spike[0, 7] = 1.0
        assert rotate(spike, signs).abs().max() < 0.5


def error(weight: torch.Tensor, **options: object) -> float:
    from vqzoo.testing.matrices import Case
    from vqzoo.testing.subject import subject_of

    subject = subject_of(LatticeQuantizer)
    case = Case("trial", "linear", tuple(weight.shape))
    compressed = subject.compress(weight, LatticeOptions.model_validate(options), case)
    assert compressed is not None
    return float((weight - compressed[1]).square().sum() / weight.square().sum())


def test_errors_are_the_expected_ones() -> None:
    weight = torch.randn(128, 96, generator=torch.Generator().manual_seed(0))
    scalar = 0.1175  # the best 2-bit scalar quantizer of normal values (Max 1960)
    assert error(weight) < 0.8 * scalar
    for stages in (1, 2):
        expected = LatticeQuantizer().expected_error(128, 96, LatticeOptions(stages=stages))
        assert 0.85 * expected < error(weight, stages=stages) < 1.15 * expected


def test_rotation_saves_heavy_tails() -> None:
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(0)).pow(3)
    assert error(weight) < 0.7 * error(weight, rotate=False)

"""Errors of decoded matrices."""

import numpy as np
import pytest
import torch

from vqzoo.compression.measures.distortion import MatrixError, matrix_error
from vqzoo.numerics.threads import use_threads


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (200, 3001), (1, 300_000), (3, 300_001)])
def test_errors_are_those_of_the_definition_with_any_number_of_threads(
    shape: tuple[int, int],
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator) * torch.rand(shape[0], 1, generator=generator)
    decoded = weight + 0.01 * torch.randn(shape, generator=generator)
    w, d = weight.double().numpy(), decoded.double().numpy()
    noise, signal = ((d - w) ** 2).sum(1), (w**2).sum(1)
    errors = set()
    for threads in (1, 2, 3):
        with use_threads(threads):
            errors.add(matrix_error(weight, decoded))
    (error,) = errors
    assert error.sqnr_db == pytest.approx(10 * np.log10(signal.sum() / noise.sum()), abs=1e-9)
    assert error.row_sqnr_db == pytest.approx(-10 * np.log10((noise / signal).mean()), abs=1e-9)


def test_perfect_copies_and_rows_of_zeros() -> None:
    weight = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert matrix_error(weight, weight.clone()) == MatrixError(None, None)
    wrong = matrix_error(weight, torch.tensor([[0.0, 1.0], [3.0, 4.0]]))
    assert wrong.sqnr_db == pytest.approx(10 * np.log10(25))
    assert wrong.row_sqnr_db == pytest.approx(10 * np.log10(2))
    assert matrix_error(torch.zeros(2, 2), torch.ones(2, 2)).sqnr_db == -300


def test_matrices_in_any_layout() -> None:
    weight = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    decoded = (weight + 0.1).T.contiguous().T
    assert matrix_error(weight, decoded) == matrix_error(weight, decoded.contiguous())
    weight.requires_grad_(True)
    assert matrix_error(weight, decoded) == matrix_error(weight.detach(), decoded)

"""Products with columns in panels agree with numpy's."""

import numpy as np
import pytest
import torch

from vqzoo.numerics.decoding.panel_product import as_columns, gathered, multiply_rows


@pytest.mark.parametrize("count", [1, 15, 16, 17, 33, 49, 64, 65, 81, 130])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (5, 40), (6, 512), (20, 600), (13, 1100)])
def test_products_agree_with_those_of_numpy(m: int, n: int, count: int) -> None:
    random = torch.Generator().manual_seed(0)
    matrix, x = (torch.randn(rows, n, generator=random) for rows in (m, count))
    panels = gathered(x, np.arange(n), np.arange(count) * n)
    products = panels.products(m)
    first = m // 2
    multiply_rows(matrix[:first], panels, products, 0)
    multiply_rows(matrix[first:], panels, products, first)
    expected = matrix.double().numpy() @ x.double().numpy().T
    found = as_columns(products, count).numpy()
    assert found.shape == (m, count)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    whole = panels.products(m)
    multiply_rows(matrix, panels, whole, 0)
    assert np.array_equal(found, as_columns(whole, count).numpy())  # wherever tiles begin


def test_columns_are_gathered_from_anywhere() -> None:
    source = torch.arange(100.0).view(10, 10)
    panels = gathered(source, np.array([0, 3, 50]), np.array([7, 2]))
    products = panels.products(1)
    multiply_rows(torch.tensor([[1.0, 100.0, 10000.0]]), panels, products, 0)
    assert as_columns(products, 2).tolist() == [[571007.0, 520502.0]]

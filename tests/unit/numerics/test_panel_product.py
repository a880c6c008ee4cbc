"""Products with columns in panels agree with numpy's."""

import numpy as np
import pytest
import torch

from vqzoo.numerics.decoding.panel_product import (
    as_columns,
    gathered,
    multiply_rows,
    places_of,
    transposed,
)
from vqzoo.numerics.threads import use_threads


@pytest.mark.parametrize("count", [1, 15, 16, 17, 33, 49, 64, 65, 81, 130])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (5, 40), (6, 512), (20, 600), (13, 1100)])
def test_products_agree_with_those_of_numpy(m: int, n: int, count: int) -> None:
    random = torch.Generator().manual_seed(0)
    matrix, x = (torch.randn(rows, n, generator=random) for rows in (m, count))
    panels = transposed(x)
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
    table = np.array([[7, 2], [-1, 5], [50, 51]])
    panels = gathered(source, 2, 3, places_of(table))
    products = panels.products(1)
    weights = torch.tensor([[1.0, 1e2, 1e4, 1e-1, 1e1, 1e3]])
    multiply_rows(weights, panels, products, 0)
    expected = [7 + 500000 + 1 + 53000, 2 + 500 + 510000 + 0.5 + 80 + 54000]
    assert as_columns(products, 2).tolist() == [pytest.approx(expected)]


@pytest.mark.parametrize("count", [3, 16, 70])
def test_threads_gather_the_same_columns(count: int) -> None:
    x = torch.randn(count, 30000, generator=torch.Generator().manual_seed(0))
    with use_threads(1):
        alone = transposed(x)
    with use_threads(3):
        shared = transposed(x)
    assert np.array_equal(alone.wide, shared.wide)
    assert np.array_equal(alone.narrow, shared.narrow)

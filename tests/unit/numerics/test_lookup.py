"""Lookups and their gradients, against plain indexing in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vqzoo.numerics.decoding.lookup import look_up, look_up_scalar
from vqzoo.numerics.threads import use_threads

sizes = st.integers(1, 9)


def plain(codes: torch.Tensor, codebooks: torch.Tensor) -> torch.Tensor:
    """Decode block by block and stage by stage, with torch's indexing."""
    s, stages, _ = codes.shape
    blocks = []
    for b in range(s):
        books = codebooks[b if len(codebooks) > 1 else 0]
        blocks.append(sum(books[t][codes[b, t].long()] for t in range(stages)))
    return torch.cat(blocks, dim=1)


@given(sizes, sizes, sizes, sizes, st.integers(1, 3), st.booleans(), st.booleans())
def test_values_and_gradients(
    s: int, m: int, k: int, d: int, stages: int, shared: bool, wide: bool
) -> None:
    generator = torch.Generator().manual_seed(s * m + k)
    codes = torch.randint(0, k, (s, stages, m), generator=generator)
    codes = codes.to(torch.int32 if wide else torch.uint8)
    books = torch.randn(1 if shared else s, stages, k, d, generator=generator, requires_grad=True)
    exact = books.detach().double().requires_grad_()
    weights = torch.randn(m, s * d, generator=generator)
    matrix, expected = look_up(codes, books), plain(codes, exact)
    torch.testing.assert_close(matrix, expected.float())
    (matrix * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(books.grad, exact.grad.float())


@pytest.mark.parametrize("shared", [True, False])
def test_float64_codebooks_use_the_lookup_of_torch(shared: bool) -> None:
    codes = torch.randint(0, 5, (3, 2, 7))
    books = torch.randn(1 if shared else 3, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda b: look_up(codes, b), (books,))
    torch.testing.assert_close(look_up(codes, books), plain(codes, books))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20))
def test_scalars(m: int, n: int, k: int) -> None:
    generator = torch.Generator().manual_seed(m * n + k)
    codes = torch.randint(0, k, (m, n), generator=generator)
    centroids = torch.randn(k, generator=generator, requires_grad=True)
    weights = torch.randn(m, n, generator=generator)
    values = look_up_scalar(codes, centroids)
    assert torch.equal(values, centroids[codes])
    (values * weights).sum().backward()
    expected = torch.zeros(k, dtype=torch.float64)
    expected.index_add_(0, codes.flatten(), weights.double().flatten())
    torch.testing.assert_close(centroids.grad, expected.float())


def test_gradients_are_the_same_with_any_number_of_threads() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 16, (700, 1, 1500), generator=generator).to(torch.uint8)
    books = torch.randn(1, 1, 16, 3, generator=generator, requires_grad=True)
    weights = torch.randn(1500, 2100, generator=generator)
    grads = []
    for threads in (1, 3):
        books.grad = None
        with use_threads(threads):
            look_up(codes, books).backward(weights)
        grads.append(books.grad)
    assert torch.equal(*grads)


def test_codebooks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        look_up(torch.zeros(3, 1, 4, dtype=torch.uint8), torch.zeros(2, 1, 5, 4))

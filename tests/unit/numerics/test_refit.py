"""Codebooks fitted to fixed codes, against dense normal equations."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from vqzoo.numerics.feedback.layer import DAMPING, even_weights
from vqzoo.numerics.feedback.low_rank import products_with
from vqzoo.numerics.feedback.refit import Decode, refit_codebooks


class Problem:
    """Sub-vectors of 2 columns and a tail of 1, random codes, rows of different sizes."""

    def __init__(self, m: int, blocks: int, k: int, groups: int = 1, books: int = 1, seed: int = 0):
        self.generator = torch.Generator().manual_seed(seed)
        self.m, self.blocks, self.n, self.groups = m, blocks, 2 * blocks + 1, groups
        self.weight = self.normal(m, self.n)
        mixing = self.normal(groups, self.n, self.n) * torch.logspace(0, -1, self.n)
        self.hessian = (mixing @ mixing.mT / self.n,)
        self.row_weights = torch.rand(m, generator=self.generator) + 0.1
        self.sizes = torch.rand(m, 1, generator=self.generator) + 0.5
        self.codes = torch.randint(0, k, (blocks, m), generator=self.generator)
        self.tail = torch.randint(0, k, (m,), generator=self.generator)
        self.books = [self.normal(books, k, 2).half().float(), self.normal(k, 1).half().float()]

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def decode(self, books: Sequence[Tensor], rows: Tensor | None) -> Tensor:
        whole, tail = books
        shared = whole.expand(self.blocks, -1, -1)
        columns = [shared[b][self.codes[b]] for b in range(self.blocks)]
        matrix = torch.cat([*columns, tail[self.tail]], 1) * self.sizes
        return matrix if rows is None else matrix[rows]

    def refit(self, rounded: Callable[[Tensor], Tensor], **options: int) -> list[Tensor]:
        decode: Decode = self.decode
        return refit_codebooks(
            self.weight, self.books, decode, self.hessian, self.row_weights, rounded, **options
        )

    def loss(self, books: Sequence[Tensor], damping: float = 0.0) -> float:
        error = (self.weight - self.decode(books, None)).double().numpy().reshape(-1)
        return float(error @ self.metric(damping) @ error)

    def metric(self, damping: float) -> NDArray[np.float64]:
        """(m·n, m·n): what products of two weights' errors cost."""
        blocks = self.hessian[0].double().numpy()
        rows = even_weights(self.row_weights).double().numpy()
        full = np.zeros((self.m, self.n, self.m, self.n))
        for i in range(self.m):
            block = blocks[i * self.groups // self.m]
            ridge = damping * block.trace() / self.n * np.eye(self.n)
            full[i, :, i] = rows[i] * (block + ridge)
        return full.reshape(self.m * self.n, -1)

    def best(self) -> list[NDArray[np.float64]]:
        """The solution of the normal equations, with a column of the design for each entry."""
        whole, tail = self.books
        books, k = whole.shape[:2]
        design = np.zeros((self.m, self.n, whole.numel() + tail.numel()))
        for i in range(self.m):
            size = float(self.sizes[i])
            for b in range(self.blocks):
                entry = ((b if books > 1 else 0) * k + int(self.codes[b, i])) * 2
                design[i, 2 * b, entry] = design[i, 2 * b + 1, entry + 1] = size
            design[i, -1, whole.numel() + int(self.tail[i])] = size
        flat = design.reshape(self.m * self.n, -1)
        weighted = flat.T @ self.metric(DAMPING)
        solution = np.linalg.solve(
            weighted @ flat, weighted @ self.weight.double().numpy().reshape(-1)
        )
        return [
            solution[: whole.numel()].reshape(whole.shape),
            solution[whole.numel() :].reshape(tail.shape),
        ]


def exact(book: Tensor) -> Tensor:
    return book


def in_float16(book: Tensor) -> Tensor:
    return book.half().float()


@pytest.mark.parametrize(("groups", "books"), [(1, 1), (3, 1), (1, 3), (3, 3)])
def test_it_is_the_solution_of_the_normal_equations(groups: int, books: int) -> None:
    problem = Problem(24, 3, 2, groups, books)
    for fitted, best in zip(problem.refit(exact, steps=40), problem.best(), strict=True):
        assert np.allclose(fitted.numpy(), best, atol=2e-3)


def test_some_rows_for_the_curvature_come_close() -> None:
    problem = Problem(96, 4, 3)
    best = problem.loss(problem.refit(exact))
    few_rows = problem.refit(exact, operations=2 * 9 * 9 * 24)
    assert not torch.equal(few_rows[0], problem.refit(exact)[0])
    assert best < problem.loss(few_rows) < best + 0.1 * (problem.loss(problem.books) - best)


@given(
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(1, 5),
    st.sampled_from([1, 2, 3]),
    st.booleans(),
    st.sampled_from([1, 1 << 33]),
    st.integers(0, 100),
)
def test_the_loss_never_rises(
    height: int, blocks: int, k: int, groups: int, shared: bool, operations: int, seed: int
) -> None:
    problem = Problem(height * groups, blocks, k, groups, 1 if shared else blocks, seed)
    for rounded in (in_float16, lambda book: (2 * book).round() / 2):
        problem.books = [rounded(book) for book in problem.books]
        before = problem.loss(problem.books)
        fitted = problem.refit(rounded, operations=operations)
        assert all(torch.equal(book, rounded(book)) for book in fitted)
        assert problem.loss(fitted) <= before * (1 + 1e-5)


def test_codebooks_stay_where_rounding_would_cost_more_than_it_gains() -> None:
    problem = Problem(24, 3, 2)
    problem.books = problem.refit(exact)
    fitted = problem.refit(lambda book: book.round())
    assert all(a is b for a, b in zip(fitted, problem.books, strict=True))


def test_centroids_without_codes_and_inputs_never_seen_stay() -> None:
    problem = Problem(24, 3, 4)
    problem.codes.clamp_(max=2)
    fitted = problem.refit(in_float16)
    assert torch.equal(fitted[0][0, 3], problem.books[0][0, 3])
    assert problem.loss(fitted) < problem.loss(problem.books)
    problem.hessian = (torch.zeros_like(problem.hessian[0]),)
    silent = problem.refit(in_float16)
    assert all(torch.equal(a, b) for a, b in zip(silent, problem.books, strict=True))


def few_vectors(columns: int, vectors: int) -> Tensor:
    """H of so many input vectors, some of them almost equal."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(vectors, columns, generator=generator).relu()
    x[1::2] = x[::2] + 1e-4 * x[1::2]
    return x.mT @ x / vectors


def test_a_product_with_h_of_few_vectors_takes_thin_factors() -> None:
    hessian = (few_vectors(2304, 120)[None], few_vectors(70, 200)[None])
    times, operations = products_with(hessian)
    assert operations <= 2 * (2 * 2304 * 120 + 70**2)
    matrix = torch.randn(5, 2374, generator=torch.Generator().manual_seed(5))
    product, exact = times(matrix).double().numpy(), matrix.double().numpy()
    dense = np.zeros((2374, 2374))
    dense[:2304, :2304], dense[2304:, 2304:] = (block[0].double().numpy() for block in hessian)
    expected = exact @ dense
    # What is left out is semidefinite, with a trace of at most 1e-5 of that of H.
    most = np.linalg.norm(exact, axis=1) * (2e-5 * dense.trace())
    assert (np.linalg.norm(product - expected, axis=1) < most).all()


def test_h_of_many_vectors_is_multiplied_by_as_it_is() -> None:
    hessian = (few_vectors(2304, 1200)[None],)
    times, operations = products_with(hessian)
    assert operations == 2 * 2304**2
    matrix = torch.randn(3, 2304, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(times(matrix), matrix @ hessian[0][0])

"""Products of codes with columns in panels agree with those of the decoded matrix."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vqzoo.numerics.coding.gaps import gaps_of, positions_of
from vqzoo.numerics.decoding.column_products import (
    CodedBlocks,
    CodedRowBlocks,
    multiply_coded_blocks,
    multiply_coded_row_blocks,
    multiply_coded_scalars,
    multiply_dense,
    multiply_sparse,
    multiply_walks,
)
from vqzoo.numerics.decoding.input_products import multiply_sparse_by_input, multiply_walk
from vqzoo.numerics.decoding.packed import pack
from vqzoo.numerics.decoding.panel_product import Panels, transposed
from vqzoo.numerics.decoding.sparse import SparseMatrix
from vqzoo.numerics.feedback.grid import walk
from vqzoo.numerics.threads import use_threads

counts = st.sampled_from([1, 7, 16, 17, 49, 64, 65, 113, 130])
rows = st.sampled_from([1, 5, 6, 13, 48, 100])


def columns(n: int, count: int) -> tuple[Panels, np.ndarray]:
    x = torch.randn(count, n)
    return transposed(x), x.T.double().numpy()


def assert_product(found: Tensor, matrix: np.ndarray, x: np.ndarray) -> None:
    assert found.shape == (len(matrix), x.shape[1])
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    error = np.abs(found.numpy() - matrix @ x)
    assert (error <= 1e-5 * (np.abs(matrix) @ np.abs(x)).max()).all()


def coded_blocks(
    m: int, sizes: Sequence[tuple[int, int]], stages: int, k: int, shared: bool, width: int
) -> tuple[list[CodedBlocks], np.ndarray]:
    """Random codes of parts of a matrix, of so many blocks of so many columns, and the matrix."""
    parts, matrices = [], []
    for s, d in sizes:
        codes = torch.randint(0, k, (s, stages, m))
        book = torch.randn(1 if shared else s, stages, k, d)
        books = book.expand(s, -1, -1, -1).double().numpy()
        values = [sum(books[b, t][codes[b, t].numpy()] for t in range(stages)) for b in range(s)]
        matrices.append(np.concatenate(values, axis=1))
        plain = codes.to(torch.uint8) if k <= 256 else codes.int()
        parts.append(CodedBlocks(plain if width == 8 else pack(codes, width, 0), book, s, width))
    return parts, np.concatenate(matrices, axis=1)


@settings(max_examples=60, deadline=None)
@given(
    m=rows,
    count=counts,
    blocks=st.sampled_from([1, 2, 9, 40, 300]),
    stages=st.integers(1, 4),
    d=st.sampled_from([1, 2, 3, 4, 6, 8, 17]),
    k=st.sampled_from([2, 3, 16, 200, 256, 700]),
    shared=st.booleans(),
    seed=st.integers(0, 99),
    tail=st.booleans(),
    scaled=st.booleans(),
    is_packed=st.booleans(),
)
def test_blocks(  # type: ignore[no-untyped-def]
    m, count, blocks, stages, d, k, shared, seed, tail, scaled, is_packed
) -> None:
    torch.manual_seed(seed)
    width = next(w for w in (1, 2, 4, 8, 16) if k <= 1 << w) if is_packed else 8
    sizes = ((blocks, d), (1, 5))[: 1 + tail]
    parts, matrix = coded_blocks(m, sizes, stages, k, shared, width)
    scales = torch.rand(m) if scaled else None
    if scales is not None:
        matrix = matrix * scales.double().numpy()[:, None]
    panels, x = columns(matrix.shape[1], count)
    found = multiply_coded_blocks(parts, panels, scales)
    assert_product(found, matrix, x)
    with use_threads(2):
        assert torch.equal(found, multiply_coded_blocks(parts, panels, scales))


@settings(max_examples=60, deadline=None)
@given(
    blocks=st.sampled_from([1, 2, 9, 40]),
    count=counts,
    n=st.sampled_from([1, 15, 16, 33, 100, 513, 1100]),
    d=st.sampled_from([1, 2, 3, 4, 6, 7, 8, 17]),
    k=st.sampled_from([2, 3, 16, 200, 256, 700]),
    shared=st.booleans(),
    seed=st.integers(0, 99),
    tail=st.booleans(),
    scaled=st.booleans(),
    is_packed=st.booleans(),
)
def test_blocks_of_rows(  # type: ignore[no-untyped-def]
    blocks, count, n, d, k, shared, seed, tail, scaled, is_packed
) -> None:
    torch.manual_seed(seed)
    parts, matrices = [], []
    for s, length in ((blocks, d), (1, 5))[: 1 + tail]:
        codes = torch.randint(0, k, (s, n))
        book = torch.randn(1 if shared else s, k, length)
        books = book.expand(s, -1, -1).double().numpy()
        matrices += [books[b][codes[b].numpy()].T for b in range(s)]
        width = next((w for w in (1, 2, 4) if k <= 1 << w), 8)
        if is_packed and (width < 8 or k > 256):
            width = width if width < 8 else 16
            parts.append(CodedRowBlocks(pack(codes, width, 1), book, width))
        else:
            held = codes.to(torch.uint8) if k <= 256 else codes.int()
            parts.append(CodedRowBlocks(held, book))
    matrix = np.concatenate(matrices)
    scales = torch.rand(len(matrix)) if scaled else None
    if scales is not None:
        matrix = matrix * scales.double().numpy()[:, None]
    panels, x = columns(n, count)
    found = multiply_coded_row_blocks(parts, panels, scales)
    assert_product(found, matrix, x)
    with use_threads(2):
        assert torch.equal(found, multiply_coded_row_blocks(parts, panels, scales))


@settings(max_examples=60, deadline=None)
@given(
    m=rows,
    count=counts,
    n=st.sampled_from([1, 15, 16, 33, 64, 100, 513, 1100]),
    k=st.sampled_from([2, 3, 16, 17, 200, 256]),
    kind=st.sampled_from(["table", "rounded table", "integers"]),
    group=st.sampled_from([0, 1, 16, 48]),
    seed=st.integers(0, 99),
)
def test_scalars(m, count, n, k, kind, group, seed) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(seed)
    codes, zero = torch.randint(0, k, (m, n), dtype=torch.uint8), None
    table = torch.randn(k)
    if kind == "rounded table":
        table = table.half().float()
    if kind == "integers":
        zero, table = k // 2, torch.arange(k, dtype=torch.float32) - k // 2
    scales = None
    matrix = table.double().numpy()[codes.long().numpy()]
    if group == 1:
        group, scales = 0, torch.rand(m, 1)
        matrix = matrix * scales.double().numpy()
    elif group:
        scales = torch.rand(m, -(-n // group))
        matrix = matrix * scales.double().numpy().repeat(group, axis=1)[:, :n]
    width = next((w for w in (1, 2, 4) if k <= 1 << w), 8)
    held = pack(codes, width, 1) if width < 8 else codes
    panels, x = columns(n, count)
    arguments = (held, width, table, panels, zero, scales, group)
    found = multiply_coded_scalars(*arguments)
    assert_product(found, matrix, x)
    with use_threads(2):
        assert torch.equal(found, multiply_coded_scalars(*arguments))


# Tasks of 128 rows: products of 300 are cut, the last ones of 44 and of 4 rows make no tables.
many_rows = st.sampled_from([48, 127, 300, 388])


@settings(max_examples=40, deadline=None)
@given(
    m=many_rows,
    count=st.integers(1, 200),
    n=st.sampled_from([1, 7, 17, 63, 65, 129, 509, 1003]),
    table=st.sampled_from([[-1.0, 1.0], [0.0, 1.0], [0.7, 0.3], [2.0]]),
    is_scaled=st.booleans(),
    seed=st.integers(0, 99),
)
def test_bits_of_many_rows(m, count, n, table, is_scaled, seed) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(seed)
    codes, values = torch.randint(0, len(table), (m, n)), torch.tensor(table)
    matrix = values.double().numpy()[codes.numpy()]
    scales = torch.randn(m, 1) if is_scaled else None
    if scales is not None:
        matrix = matrix * scales.double().numpy()
    panels, x = columns(n, count)
    arguments = (pack(codes, 1, 1), 1, values, panels, None, scales)
    found = multiply_coded_scalars(*arguments)
    assert_product(found, matrix, x)
    with use_threads(2):
        assert torch.equal(found, multiply_coded_scalars(*arguments))


@settings(max_examples=40, deadline=None)
@given(
    m=many_rows,
    count=st.integers(1, 200),
    blocks=st.sampled_from([1, 2, 3, 7, 8, 9, 90, 171]),
    stages=st.integers(1, 2),
    d=st.sampled_from([4, 7, 8]),
    k=st.sampled_from([5, 16]),
    shared=st.booleans(),
    tail=st.booleans(),
    seed=st.integers(0, 99),
)
def test_blocks_of_four_bits_and_many_rows(  # type: ignore[no-untyped-def]
    m, count, blocks, stages, d, k, shared, tail, seed
) -> None:
    torch.manual_seed(seed)
    sizes = ((blocks, d), (1, 3), (2, 5))[: 1 + 2 * tail]
    parts, matrix = coded_blocks(m, sizes, stages, k, shared, 4)
    panels, x = columns(matrix.shape[1], count)
    found = multiply_coded_blocks(parts, panels)
    assert_product(found, matrix, x)
    with use_threads(2):
        assert torch.equal(found, multiply_coded_blocks(parts, panels))


@settings(max_examples=40, deadline=None)
@given(
    m=st.sampled_from([1, 7, 128, 130, 300]),
    count=counts,
    n=st.sampled_from([1, 16, 33, 520, 1100]),
    reach=st.sampled_from([1, 2, 7, 100, 400]),
    is_packed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_walks(m, count, n, reach, is_packed, seed) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(seed)
    codes, width = torch.randint(0, 2 * reach + 1, (m, n)), 8
    held = codes.to(torch.uint8) if reach < 128 else codes.int()
    if is_packed and (reach <= 7 or reach > 127):
        width = next(w for w in (2, 4, 16) if 2 * reach < 1 << w)
        held = pack(codes, width, 1)
    scales = torch.rand(m)
    matrix = walk(codes.int() - reach).double().numpy() * scales.double().numpy()[:, None]
    panels, x = columns(n, count)
    found = multiply_walks(held, width, reach, panels, scales)
    assert_product(found, matrix, x)
    factors = torch.rand(n)
    scaled = multiply_walks(held, width, reach, panels, scales, factors)
    assert_product(scaled, matrix * factors.double().numpy(), x)
    one = torch.from_numpy(x[:, 0]).float()
    product = multiply_walk(held, width, reach, one, scales)
    assert_product(product[:, None], matrix, x[:, :1])
    with use_threads(2):
        assert torch.equal(found, multiply_walks(held, width, reach, panels, scales))
        assert torch.equal(product, multiply_walk(held, width, reach, one, scales))


@settings(max_examples=60, deadline=None)
@given(
    m=rows | st.just(301),
    count=counts,
    n=st.sampled_from([1, 16, 33, 521, 1100]),
    density=st.sampled_from([0.0, 0.002, 0.01, 0.1, 0.35, 0.9, 1.0]),
    bits=st.sampled_from([2, 3, 4, 5, 8]),
    is_packed=st.booleans(),
    has_table=st.booleans(),
    seed=st.integers(0, 99),
)
def test_sparse(m, count, n, density, bits, is_packed, has_table, seed) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(seed)
    places = (torch.rand(m * n) < density).nonzero()[:, 0]
    places = places if len(places) else torch.tensor([m * n - 1])
    held, layout = held_gaps(gaps_of(places, bits), bits, is_packed)
    codes, table = torch.randint(0, 200, (len(places),), dtype=torch.uint8), torch.randn(200)
    matrix = np.zeros(m * n)
    matrix[places.numpy()] = table[codes.long()].double().numpy()
    panels, x = columns(n, count)
    values = (codes, table) if has_table else (table[codes.long()], None)
    sparse = SparseMatrix(m, held, *layout, *values)
    one = torch.from_numpy(x[:, 0]).float()
    found, product = multiply_sparse(sparse, panels), multiply_sparse_by_input(sparse, one)
    assert_product(found, matrix.reshape(m, n), x)
    assert_product(product[:, None], matrix.reshape(m, n), x[:, :1])
    with use_threads(2):
        assert torch.equal(found, multiply_sparse(sparse, panels))
        assert torch.equal(product, multiply_sparse_by_input(sparse, one))


def held_gaps(gaps: Tensor, bits: int, is_packed: bool) -> tuple[Tensor, tuple[int, int, int]]:
    width = next(w for w in (1, 2, 4, 8) if bits <= w) if is_packed else 8
    held = pack(gaps, width, 0) if width < 8 else gaps
    return held, (width, (1 << bits) - 1, len(gaps))


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize(
    "gaps",
    [
        [0, 3, 3, 3, 0, 2],  # fillers over the border of rows, and as far as it
        [3, 3, 3, 1, 0, 0, 0],  # two empty rows before the first nonzero
        [2, 1, 3, 3],  # fillers behind the last nonzero
        [2, 3, 3, 3, 3],  # as far as the end of the matrix
        [2, 3, 3, 3, 3, 3],  # beyond it
        [0] * 15,  # no zeros
        [3, 3, 3, 3, 2],  # the last place alone
    ],
)
def test_fillers_at_borders_of_rows(gaps: list[int], is_packed: bool) -> None:
    held, layout = held_gaps(torch.tensor(gaps, dtype=torch.uint8), 2, is_packed)
    places = positions_of(torch.tensor(gaps), 2)
    matrix, values = np.zeros(15), torch.arange(1.0, len(places) + 1)
    matrix[places.numpy()] = values
    panels, x = columns(5, 17)
    sparse = SparseMatrix(3, held, *layout, values)
    assert_product(multiply_sparse(sparse, panels), matrix.reshape(3, 5), x)
    product = multiply_sparse_by_input(sparse, torch.from_numpy(x[:, 0]).float())
    assert_product(product[:, None], matrix.reshape(3, 5), x[:, :1])


def test_rows_without_nonzeros() -> None:
    matrix = torch.zeros(200, 700)
    matrix[60:63, ::3] = torch.randn(3, 234)
    matrix[150, 699] = 1.0
    places = matrix.view(-1).nonzero()[:, 0]
    panels, x = columns(700, 49)
    for bits in (2, 8):
        held, layout = held_gaps(gaps_of(places, bits), bits, True)
        sparse = SparseMatrix(200, held, *layout, matrix.view(-1)[places])
        assert_product(multiply_sparse(sparse, panels), matrix.double().numpy(), x)


def test_floats() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(65, 700)
    for count in (1, 49, 130):
        panels, x = columns(700, count)
        assert_product(multiply_dense(matrix, panels), matrix.double().numpy(), x)


def test_rows_of_panels_are_mixed() -> None:
    panels, x = columns(18, 70)
    basis = torch.randn(9, 9)
    factors = torch.rand(18)
    mixed = (basis.double().numpy() @ x.reshape(2, 9, 70)).reshape(18, 70)
    found = multiply_dense(torch.eye(18), panels.mixed(basis, factors))
    assert_product(found, np.diag(factors.double().numpy()), mixed)


def test_rows_of_panels_are_scaled() -> None:
    panels, x = columns(20, 70)
    factors = torch.arange(20.0)
    found = multiply_coded_scalars(
        torch.ones(3, 20, dtype=torch.uint8), 8, torch.ones(2), panels.scaled(factors)
    )
    assert_product(found, np.ones((3, 20)), x * factors.double().numpy()[:, None])


def test_columns_that_are_not_there_add_nothing() -> None:
    x = torch.full((3, 9), torch.inf)
    found = multiply_coded_scalars(
        pack(torch.ones(64, 9), 1, 1), 1, torch.tensor([0.0, 1.0]), transposed(x)
    )
    assert (found == torch.inf).all()


def test_a_code_of_four_bits_beyond_the_codebook_reads_the_last_centroid() -> None:
    codes, book = torch.full((3, 1, 64), 15), torch.tensor([1.0, 10.0]).repeat_interleave(4)
    parts = [CodedBlocks(pack(codes, 4, 0), book.reshape(1, 1, 2, 4), 3, 4)]
    found = multiply_coded_blocks(parts, transposed(torch.ones(1, 12)))
    assert (found == 120.0).all()


def test_a_code_beyond_the_codebook_reads_the_last_centroid() -> None:
    book = torch.tensor([[[[1.0], [10.0]]]])
    codes = torch.tensor([[[0, 1, 255]]], dtype=torch.uint8)
    found = multiply_coded_blocks([CodedBlocks(codes, book, 1)], transposed(torch.ones(1, 1)))
    assert found.flatten().tolist() == [1.0, 10.0, 10.0]
    by_rows = CodedRowBlocks(codes[0], book[0])
    assert multiply_coded_row_blocks([by_rows], transposed(torch.ones(1, 3))).item() == 21.0


def test_what_does_not_fit_is_refused() -> None:
    codes, book = torch.zeros(2, 1, 3, dtype=torch.uint8), torch.zeros(1, 1, 2, 4)
    whole = CodedBlocks(codes, book, 2)
    three_books = CodedBlocks(codes, torch.zeros(3, 1, 2, 4), 2)
    two_stages = CodedBlocks(codes, torch.zeros(1, 2, 2, 4), 2)
    other_rows = CodedBlocks(codes[:, :, :1], book, 2)
    panels, _ = columns(8, 2)
    for parts in ([three_books], [two_stages], [whole, other_rows], [whole, whole]):
        with pytest.raises(ValueError, match="do not fit"):
            multiply_coded_blocks(parts, panels)
    by_rows = (
        CodedRowBlocks(torch.zeros(2, 7, dtype=torch.uint8), book[0]),
        CodedRowBlocks(torch.zeros(2, 8, dtype=torch.uint8), torch.zeros(3, 2, 4)),
        CodedRowBlocks(torch.zeros(2, 8, dtype=torch.uint8), book[0], 4),
    )
    for part in by_rows:
        with pytest.raises(ValueError, match="do not fit"):
            multiply_coded_row_blocks([part], panels)
    with pytest.raises(ValueError, match="multiple of 16"):
        multiply_coded_scalars(codes[0], 8, torch.ones(2), panels, None, torch.ones(1, 2), 4)

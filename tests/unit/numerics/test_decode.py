"""Decoding, against torch's own indexing."""

import numpy as np
import pytest
import torch
from torch import Tensor

from vqzoo.numerics.decoding.decode import decode_pq, decode_residual, decode_scalar
from vqzoo.numerics.decoding.packed import pack, width_of


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def draw_codes(k: int, *shape: int) -> Tensor:
    codes = torch.randint(0, k, shape, generator=torch.Generator().manual_seed(1))
    return codes.to(torch.uint8 if k <= 256 else torch.int32)


def expected(codes: Tensor, codebooks: Tensor) -> Tensor:
    s = codes.shape[0]
    return torch.cat([codebooks[b % len(codebooks)][codes[b].long()] for b in range(s)], dim=1)


@pytest.mark.parametrize("d", [1, 2, 3, 4, 7, 8, 16, 32])
@pytest.mark.parametrize("k", [5, 256, 1000])
@pytest.mark.parametrize("shared", [False, True])
def test_pq(d: int, k: int, shared: bool) -> None:
    codes, codebooks = draw_codes(k, 37, 53), draw(1 if shared else 37, k, d)
    out = torch.full((53, 37 * d), torch.nan)
    assert decode_pq(codes, codebooks, out) is out
    assert out.equal(expected(codes, codebooks))


def test_decoding_into_some_columns_leaves_the_others_alone() -> None:
    codes, codebooks = draw_codes(16, 5, 9), draw(5, 16, 4)
    wide = torch.zeros(9, 30)
    decode_pq(codes, codebooks, wide[:, 3:23])
    assert wide[:, 3:23].equal(expected(codes, codebooks))
    assert not wide[:, :3].any()
    assert not wide[:, 23:].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_codebooks(dtype: torch.dtype) -> None:
    codes, codebooks = draw_codes(16, 5, 9), draw(5, 16, 4).to(dtype)
    out = decode_pq(codes, codebooks, torch.empty(9, 20))
    assert out.equal(expected(codes, codebooks.float()))


@pytest.mark.parametrize("k", [2, 3, 10, 16, 200, 300])
@pytest.mark.parametrize("d", [1, 3, 4, 8])
@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("shared", [True, False])
def test_some_rows_of_packed_blocks(k: int, d: int, stages: int, shared: bool) -> None:
    random = np.random.default_rng(k)
    for s, m, first, last in ((37, 80, 3, 78), (1, 5, 0, 5), (9, 40, 39, 40)):
        codes = random.integers(k, size=(s, stages, m))
        books = random.standard_normal((1 if shared else s, stages, k, d)).astype(np.float32)
        expected = np.zeros((m, s * d), np.float32)
        for block in range(s):
            for stage in range(stages):
                centroids = books[0 if shared else block, stage]
                expected[:, block * d : (block + 1) * d] += centroids[codes[block, stage]]
        width = width_of(k)
        held = torch.from_numpy(codes).to(torch.uint8 if k <= 256 else torch.int32)
        packed = pack(held, width, 0) if width < 8 else held
        out = torch.full((last - first, s * d), float("nan"))
        decode_residual(packed[:, :, first:last], torch.from_numpy(books), out, min(width, 8))
        assert np.array_equal(out.numpy(), expected[first:last])


def test_packed_blocks_that_do_not_fit_are_refused() -> None:
    codes, books = torch.zeros(3, 1, 8, dtype=torch.uint8), torch.zeros(1, 1, 16, 4)
    with pytest.raises(ValueError, match="do not hold 9 codes of 4 bits"):
        decode_residual(codes, books, torch.empty(8, 36), 4)


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("shared", [False, True])
def test_residual(stages: int, shared: bool) -> None:
    codes, codebooks = draw_codes(16, 7, stages, 53), draw(1 if shared else 7, stages, 16, 4)
    out = decode_residual(codes, codebooks, torch.empty(53, 28))
    sums = sum(expected(codes[:, t], codebooks[:, t]) for t in range(stages))
    torch.testing.assert_close(out, sums)


@pytest.mark.parametrize("shape", [(7, 5, 3), (5_000_003,)])
@pytest.mark.parametrize("k", [3, 256, 300])
def test_scalar(k: int, shape: tuple[int, ...]) -> None:
    codes, centroids = draw_codes(k, *shape), draw(k)
    out = decode_scalar(codes, centroids, torch.empty(shape))
    assert out.equal(centroids[codes.long()])


@pytest.mark.parametrize(
    ("codes", "codebooks", "out", "message"),
    [
        (torch.full((2, 3), 4, dtype=torch.uint8), (2, 4, 1), (3, 2), "out of range"),
        (torch.full((2, 3), -1, dtype=torch.int32), (2, 4, 1), (3, 2), "out of range"),
        (torch.zeros(2, 3), (2, 4, 1), (3, 2), "uint8"),
        (torch.zeros(2, 3, dtype=torch.uint8), (3, 4, 1), (3, 2), "codebooks"),
        (torch.zeros(2, 3, dtype=torch.uint8), (2, 4, 1), (2, 3), "do not fit"),
        (torch.zeros(2, 3, dtype=torch.uint8), (2, 4, 1), (3, 3), "out must"),
    ],
)
def test_refuses(
    codes: Tensor, codebooks: tuple[int, ...], out: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        decode_pq(codes, torch.zeros(codebooks), torch.zeros(out))


@pytest.mark.parametrize("code", [4, 255])
def test_scalar_refuses_a_code_out_of_range(code: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        decode_scalar(torch.tensor([code], dtype=torch.uint8), torch.zeros(4), torch.zeros(1))

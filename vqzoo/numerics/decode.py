"""From codes back to weights, in parallel, into a buffer that the caller owns."""

import numpy as np
import torch
from numba import njit
from torch import Tensor

from vqzoo.numerics.arrays import as_float32, narrow_and_wide
from vqzoo.numerics.bits import check_stream, unpack
from vqzoo.numerics.threads import run_tasks

_BLOCKS = 32  # blocks a task: whole cache lines of every row, codebooks that stay in L2
_VALUES = 1 << 20  # values a task


@njit(nogil=True, cache=True)
def _decode(codes8, codes32, codebooks, first, out, add):  # type: ignore[no-untyped-def]
    """out[i, b·d:(b+1)·d] = (or +=) codebooks[b, codes[b, i]], blocks `first` and following."""
    d = codebooks.shape[2]
    narrow = codes8.shape[0] > 0
    blocks = codes8.shape[0] if narrow else codes32.shape[0]
    shared = codebooks.shape[0] == 1
    for i in range(out.shape[0]):
        for b in range(blocks):
            code = np.int64(codes8[b, i]) if narrow else np.int64(codes32[b, i])
            book = 0 if shared else first + b
            at = (first + b) * d
            if add:
                for dim in range(d):
                    out[i, at + dim] += codebooks[book, code, dim]
            else:
                for dim in range(d):
                    out[i, at + dim] = codebooks[book, code, dim]


def decode_pq(codes: Tensor, codebooks: Tensor, out: Tensor) -> Tensor:
    """Fill `out[:, b·d:(b + 1)·d]` with `codebooks[b][codes[b]]`, for every block b.

    Args:
        codes: (s, m), uint8 or int32, below k.
        codebooks: (s, k, d), or (1, k, d) where all blocks share one; float32, float16, bfloat16.
        out: (m, s·d) float32, rows contiguous (a view of some columns of a wider one will do).

    Returns:
        `out`.

    Raises:
        ValueError: shapes or dtypes that do not match, a code that names no centroid.
    """
    return _decode_into(codes, codebooks, out, add=False)


def decode_residual(codes: Tensor, codebooks: Tensor, out: Tensor) -> Tensor:
    """Fill `out[:, b·d:(b + 1)·d]` with the sum over stages t of `codebooks[b, t][codes[b, t]]`.

    Args:
        codes: (s, stages, m), uint8 or int32, below k.
        codebooks: (s, stages, k, d) or (1, stages, k, d); float32, float16 or bfloat16.
        out: (m, s·d) float32, as in `decode_pq`.

    Returns:
        `out`.

    Raises:
        ValueError: as `decode_pq`.
    """
    for stage in range(codes.shape[1]):
        _decode_into(codes[:, stage], codebooks[:, stage], out, add=stage > 0)
    return out


def decode_scalar(codes: Tensor, centroids: Tensor, out: Tensor) -> Tensor:
    """Fill `out` with `centroids[codes]`.

    Args:
        codes: any shape, uint8 or int32, below k.
        centroids: (k,), float32, float16 or bfloat16.
        out: of the codes' shape, contiguous float32.

    Returns:
        `out`.

    Raises:
        ValueError: shapes or dtypes that do not match, a code that names no centroid.
    """
    if not out.is_contiguous() or out.numel() != codes.numel():
        raise ValueError(f"out must be contiguous, of shape {tuple(codes.shape)}")
    decode_pq(codes.reshape(1, -1), centroids.view(1, -1, 1), out.view(-1, 1))
    return out


def decode_pq_stream(stream: Tensor, bits: int, codebooks: Tensor, s: int, out: Tensor) -> Tensor:
    """`decode_pq` of the s·m codes, block after block, of a bit stream (see `bits.pack`)."""
    m = out.shape[0]
    check_stream(stream, bits, s * m)
    return decode_pq(unpack(stream, bits, s * m).view(s, m), codebooks, out)


def _decode_into(codes: Tensor, codebooks: Tensor, out: Tensor, add: bool) -> Tensor:
    blocks, m = codes.shape
    books, k, d = codebooks.shape
    if books not in (1, blocks):
        raise ValueError(f"{books} codebooks do not fit {blocks} blocks: expected 1 or {blocks}")
    if out.shape != (m, blocks * d) or out.dtype != torch.float32 or out.stride(1) != 1:
        raise ValueError(
            f"out must be float32 of shape {(m, blocks * d)} with contiguous rows, "
            f"not {out.dtype} of shape {tuple(out.shape)} and strides {out.stride()}"
        )
    if codes.dtype not in (torch.uint8, torch.int32):
        raise ValueError(f"codes must be uint8 or int32, not {codes.dtype}")
    if codes.numel() == 0:
        return out
    if int(codes.max()) >= k or (codes.dtype != torch.uint8 and int(codes.min()) < 0):
        raise ValueError(f"a code is out of range: there are {k} centroids")
    values = as_float32(codebooks)
    target = out.detach().numpy()
    height = max(1, min(m, _VALUES // (min(blocks, _BLOCKS) * d)))
    spans = [(b, i) for b in range(0, blocks, _BLOCKS) for i in range(0, m, height)]

    def work(span: tuple[int, int]) -> None:
        b, i = span
        codes8, codes32 = narrow_and_wide(codes[b : b + _BLOCKS, i : i + height])
        _decode(codes8, codes32, values, b, target[i : i + height], add)

    run_tasks(work, spans)
    return out

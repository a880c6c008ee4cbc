"""From codes back to weights, in parallel, into a buffer that the caller owns.

Each decoder reads codes as they come from k-means, or, named `..._stream`, straight from a packed
bit stream of the same codes in the same order: no task unpacks more than it is about to decode.
Where `out` is on another device than the CPU, so are codes and codebooks, and streams are unpacked
on the CPU.
"""

from collections.abc import Callable

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from vqzoo.numerics.arrays import Floats, as_float32, narrow_and_wide
from vqzoo.numerics.bits import check_stream, unpack, unpack_range
from vqzoo.numerics.threads import run_tasks
from vqzoo.numerics.torch_decode import decode_blocks_elsewhere, decode_scalars_elsewhere
from vqzoo.numerics.vectors import add_four, copy_four

_CODEBOOKS = 1 << 17  # floats of codebooks a task decodes with: they stay in the second-level cache
_LINE = 512  # values of a row that a task writes side by side
_ROWS = 8
_VALUES = 1 << 20  # values a task

CodeArrays = tuple[NDArray[np.uint8], NDArray[np.int32]]


@njit(nogil=True, cache=True)
def _decode_blocks(  # type: ignore[no-untyped-def]
    narrow, wide, base, m, stages, k, d, codebooks, shared, blocks, rows, out, row_stride
):
    """Sum up each block's stages, for blocks and rows (start, stop).

    narrow or wide, whichever is not empty: flat codes below k, that of (block, stage, row) at
    (block · stages + stage) · m + row - base. codebooks: flat, (books, stages, k, d).
    """
    small = narrow.shape[0] > 0
    quads = d // 4 * 4
    # A few rows at a time: out's rows are often a power of two apart, and would evict each other.
    for top in range(rows[0], rows[1], _ROWS):
        bottom = min(top + _ROWS, rows[1])
        for block in range(blocks[0], blocks[1]):
            for stage in range(stages):
                at = (block * stages + stage) * m - base
                book = (stage if shared else block * stages + stage) * k * d
                for row in range(top, bottom):
                    code = np.int64(narrow[at + row]) if small else np.int64(wide[at + row])
                    source = book + code * d
                    to = row * row_stride + block * d
                    if stage == 0:
                        for dim in range(0, quads, 4):
                            copy_four(codebooks, source + dim, out, to + dim)
                        for dim in range(quads, d):
                            out[to + dim] = codebooks[source + dim]
                    else:
                        for dim in range(0, quads, 4):
                            add_four(codebooks, source + dim, out, to + dim)
                        for dim in range(quads, d):
                            out[to + dim] += codebooks[source + dim]


@njit(nogil=True, cache=True)
def _look_up(narrow, wide, centroids, out):  # type: ignore[no-untyped-def]
    """out = centroids[codes], codes out of narrow or wide, whichever is not empty."""
    if narrow.shape[0] > 0:
        for i in range(out.shape[0]):
            out[i] = centroids[narrow[i]]
    else:
        for i in range(out.shape[0]):
            out[i] = centroids[wide[i]]


def decode_pq(codes: Tensor, codebooks: Tensor, out: Tensor) -> Tensor:
    """Fill `out[:, b·d:(b + 1)·d]` with `codebooks[b][codes[b]]`, for every block b.

    Args:
        codes: (s, m), uint8 or int32, below k.
        codebooks: (s, k, d), or (1, k, d) where all blocks share one; float32, float16, bfloat16.
        out: (m, s·d) float32, rows contiguous (a view of some columns of a wider one will do).

    Returns:
        `out`.

    Raises:
        ValueError: shapes or dtypes that do not match, a code that names no centroid (then part
            of `out` may have been written).
    """
    decode_residual(codes[:, None], codebooks[:, None], out)
    return out


def decode_pq_stream(stream: Tensor, bits: int, codebooks: Tensor, s: int, out: Tensor) -> Tensor:
    """`decode_pq` of the s·m codes, block after block, of a bit stream (see `bits.pack`)."""
    return decode_residual_stream(stream, bits, codebooks[:, None], s, out)


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
    s, stages, m = codes.shape
    if codes.dtype not in (torch.uint8, torch.int32):
        raise ValueError(f"codes must be uint8 or int32, not {codes.dtype}")
    if stages != codebooks.shape[1] or m != out.shape[0]:
        raise ValueError(
            f"codes of shape {tuple(codes.shape)} do not fit codebooks of shape "
            f"{tuple(codebooks.shape)} and out of shape {tuple(out.shape)}"
        )
    if out.device.type != "cpu":
        _check_blocks(s, codebooks, out)
        return decode_blocks_elsewhere(codes, codebooks, out)
    narrow, wide = narrow_and_wide(codes.detach().contiguous().view(-1))
    return _decode(lambda first, last: (narrow, wide, 0), s, codebooks, out, True)


def decode_residual_stream(
    stream: Tensor, bits: int, codebooks: Tensor, s: int, out: Tensor
) -> Tensor:
    """`decode_residual` of a bit stream of its codes, in their order (s, stages, m)."""
    m, stages = out.shape[0], codebooks.shape[1]
    if out.device.type != "cpu":
        codes = unpack(stream, bits, s * stages * m).view(s, stages, m)
        return decode_residual(codes.to(out.device), codebooks, out)
    check_stream(stream, bits, s * stages * m)
    source = stream.detach().contiguous().numpy()
    if bits == 8:
        return _decode(lambda first, last: (source, _no_codes()[1], 0), s, codebooks, out, True)

    def unpacked(first: int, last: int) -> tuple[NDArray[np.uint8], NDArray[np.int32], int]:
        start = first * stages * m // 8 * 8
        count = last * stages * m - start
        narrow, wide = _room(bits, count)
        unpack_range(source, bits, start, count, narrow, wide)
        return narrow, wide, start

    return _decode(unpacked, s, codebooks, out, False)


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
    if codes.dtype not in (torch.uint8, torch.int32):
        raise ValueError(f"codes must be uint8 or int32, not {codes.dtype}")
    if codes.numel() != out.numel():
        raise ValueError(f"out must have shape {tuple(codes.shape)}, not {tuple(out.shape)}")
    if out.device.type != "cpu":
        _check_scalars(out)
        return decode_scalars_elsewhere(codes, centroids, out)
    narrow, wide = narrow_and_wide(codes.detach().contiguous().view(-1))
    return _decode_scalar(
        lambda start, stop: (narrow[start:stop], wide[start:stop]), centroids, out
    )


def decode_scalar_stream(stream: Tensor, bits: int, centroids: Tensor, out: Tensor) -> Tensor:
    """`decode_scalar` of a bit stream of as many codes as `out` has values."""
    if out.device.type != "cpu":
        codes = unpack(stream, bits, out.numel()).to(out.device)
        return decode_scalar(codes, centroids, out)
    check_stream(stream, bits, out.numel())
    source = stream.detach().contiguous().numpy()
    if bits == 8:
        return _decode_scalar(
            lambda start, stop: (source[start:stop], _no_codes()[1]), centroids, out
        )

    def unpacked(start: int, stop: int) -> CodeArrays:
        narrow, wide = _room(bits, stop - start)
        unpack_range(source, bits, start, stop - start, narrow, wide)
        return narrow, wide

    return _decode_scalar(unpacked, centroids, out)


def _no_codes() -> CodeArrays:
    return np.empty(0, np.uint8), np.empty(0, np.int32)


def _room(bits: int, count: int) -> CodeArrays:
    narrow, wide = _no_codes()
    if bits <= 8:
        return np.empty(count, np.uint8), wide
    return narrow, np.empty(count, np.int32)


def _check_blocks(s: int, codebooks: Tensor, out: Tensor) -> None:
    books, d, m = codebooks.shape[0], codebooks.shape[3], out.shape[0]
    if books not in (1, s):
        raise ValueError(f"{books} codebooks do not fit {s} blocks: expected 1 or {s}")
    if out.shape != (m, s * d) or out.dtype != torch.float32 or out.stride(1) != 1:
        raise ValueError(
            f"out must be float32 of shape {(m, s * d)} with contiguous rows, "
            f"not {out.dtype} of shape {tuple(out.shape)} and strides {out.stride()}"
        )


def _check_scalars(out: Tensor) -> None:
    if not out.is_contiguous() or out.dtype != torch.float32:
        raise ValueError(f"out must be contiguous float32, not {out.dtype}")


def _decode(
    codes: Callable[[int, int], tuple[NDArray[np.uint8], NDArray[np.int32], int]],
    s: int,
    codebooks: Tensor,
    out: Tensor,
    cut_rows: bool,
) -> Tensor:
    """codes(first, last): those of blocks first to last - 1, and the number of the first one."""
    books, stages, k, d = codebooks.shape
    m = out.shape[0]
    _check_blocks(s, codebooks, out)
    if out.numel() == 0:
        return out
    values = as_float32(codebooks).reshape(-1)
    row_stride = out.stride(0)
    target = out.detach().as_strided(((m - 1) * row_stride + s * d,), (1,)).numpy()
    width = max(-(-_LINE // d), 1)
    if books > 1:
        width = max(min(width, _CODEBOOKS // (stages * k * d)), 1)
    height = max(1, _VALUES // (width * d)) if cut_rows else m
    spans = [
        ((b, min(b + width, s)), (i, min(i + height, m)))
        for b in range(0, s, width)
        for i in range(0, m, height)
    ]

    def work(span: tuple[tuple[int, int], tuple[int, int]]) -> None:
        blocks, rows = span
        narrow, wide, base = codes(*blocks)
        own = slice(blocks[0] * stages * m - base, blocks[1] * stages * m - base)
        _refuse_unknown(narrow[own] if len(narrow) else wide[own], k)
        _decode_blocks(
            narrow,
            wide,
            base,
            m,
            stages,
            k,
            d,
            values,
            books == 1,
            blocks,
            rows,
            target,
            row_stride,
        )

    run_tasks(work, spans)
    return out


def _decode_scalar(
    codes: Callable[[int, int], CodeArrays], centroids: Tensor, out: Tensor
) -> Tensor:
    """codes(start, stop): those of the values start to stop - 1."""
    _check_scalars(out)
    values: Floats = as_float32(centroids)
    target = out.detach().view(-1).numpy()

    def work(start: int) -> None:
        stop = min(start + _VALUES, len(target))
        narrow, wide = codes(start, stop)
        _refuse_unknown(narrow if len(narrow) else wide, len(values))
        _look_up(narrow, wide, values, target[start:stop])

    run_tasks(work, range(0, len(target), _VALUES))
    return out


def _refuse_unknown(codes: NDArray[np.uint8] | NDArray[np.int32], k: int) -> None:
    if codes.dtype == np.uint8 and k >= 256:
        return
    if codes.max() >= k or codes.min() < 0:
        raise ValueError(f"a code is out of range: there are {k} centroids")

"""From codes back to weights, in parallel, into a buffer that the caller owns.

Where `out` is on a device other than the CPU, codes and codebooks must be there as well.
"""

import numpy as np
import torch
from torch import Tensor

from vqzoo.numerics.accelerated.torch_decode import (
    decode_blocks_on_device,
    decode_scalars_on_device,
)
from vqzoo.numerics.arrays import Floats, as_float32, narrow_and_wide
from vqzoo.numerics.decoding.packed import run_length
from vqzoo.numerics.kernels.decode_kernels import BAND, decode_blocks, decode_values
from vqzoo.numerics.kernels.products.byte_rows import decode_bytes
from vqzoo.numerics.kernels.products.byte_tables import HAS_BYTE_TABLES, byte_planes, is_exact
from vqzoo.numerics.threads import run_tasks

_VALUES = 1 << 21  # values a task
_BYTES = 256  # different codes of eight bits
_LINE_BYTES = 64  # of the cache
_STREAMED = 1 << 22  # bytes of a matrix that is written past the caches; smaller ones are read soon


def decode_pq(codes: Tensor, codebooks: Tensor, out: Tensor, width: int = 8) -> Tensor:
    """Fill `out[:, b·d:(b + 1)·d]` with `codebooks[b][codes[b]]`, for every block b.

    Args:
        codes: (s, m), uint8 or int32, below k; or as `decode_residual` takes them.
        codebooks: (s, k, d), or (1, k, d) where all blocks share one; float32, float16, bfloat16.
        out: (m, s·d) float32 with contiguous rows; a view of some columns of a wider matrix will
            do.
        width: of a code in bits, if blocks share bytes.

    Returns:
        `out`.

    Raises:
        ValueError: shapes or dtypes do not match, or a code is not below k (part of `out` may have
            been written by then).
    """
    return decode_residual(codes[:, None], codebooks[:, None], out, width)


def decode_residual(codes: Tensor, codebooks: Tensor, out: Tensor, width: int = 8) -> Tensor:
    """Fill `out[:, b·d:(b + 1)·d]` with the sum over stages t of `codebooks[b, t][codes[b, t]]`.

    Args:
        codes: (s, stages, m), uint8 or int32, below k; or, with a width below 8, packed along
            blocks, uint8 on the CPU, see `decoding.packed`.
        codebooks: (s, stages, k, d) or (1, stages, k, d); float32, float16 or bfloat16.
        out: (m, s·d) float32, as in `decode_pq`.
        width: of a code in bits, if blocks share bytes.

    Returns:
        `out`.

    Raises:
        ValueError: as `decode_pq`.
    """
    lines, stages, m = codes.shape
    books, d = codebooks.shape[0], codebooks.shape[3]
    s = lines if width >= 8 else out.shape[1] // d
    _check_dtype(codes)
    if stages != codebooks.shape[1] or m != out.shape[0]:
        raise ValueError(
            f"codes of shape {tuple(codes.shape)} do not fit codebooks of shape "
            f"{tuple(codebooks.shape)} and out of shape {tuple(out.shape)}"
        )
    if width < 8 and (lines != run_length(s, width, last=False) or codes.dtype != torch.uint8):
        raise ValueError(f"{lines} lines of {codes.dtype} do not hold {s} codes of {width} bits")
    if books not in (1, s):
        raise ValueError(f"{books} codebooks do not fit {s} blocks: expected 1 or {s}")
    if out.shape != (m, s * d) or out.dtype != torch.float32 or out.stride(1) != 1:
        raise ValueError(
            f"out must be float32 of shape {(m, s * d)} with contiguous rows, "
            f"not {out.dtype} of shape {tuple(out.shape)} and strides {out.stride()}"
        )
    if out.device.type != "cpu":
        return decode_blocks_on_device(codes, codebooks, out)
    return out if out.numel() == 0 else _decode_blocks(codes, codebooks, out, width)


def decode_scalar(codes: Tensor, centroids: Tensor, out: Tensor) -> Tensor:
    """Fill `out` with `centroids[codes]`.

    Args:
        codes: any shape, uint8 or int32, below k.
        centroids: (k,), float32, float16 or bfloat16.
        out: contiguous float32 of the same shape as `codes`.

    Returns:
        `out`.

    Raises:
        ValueError: shapes or dtypes do not match, or a code is not below k.
    """
    _check_dtype(codes)
    if codes.numel() != out.numel():
        raise ValueError(f"out must have shape {tuple(codes.shape)}, not {tuple(out.shape)}")
    if not out.is_contiguous() or out.dtype != torch.float32:
        raise ValueError(f"out must be contiguous float32, not {out.dtype}")
    if out.device.type != "cpu":
        return decode_scalars_on_device(codes, centroids, out)
    return _decode_scalars(codes, centroids, out)


def _check_dtype(codes: Tensor) -> None:
    if codes.dtype not in (torch.uint8, torch.int32):
        raise ValueError(f"codes must be uint8 or int32, not {codes.dtype}")


def _decode_blocks(codes: Tensor, codebooks: Tensor, out: Tensor, width: int) -> Tensor:
    lines, stages, m = codes.shape
    books, _, k, d = codebooks.shape
    s = out.shape[1] // d
    flat, pitch = _flat_lines(codes.detach())
    narrow, wide = narrow_and_wide(flat)
    centroids = as_float32(codebooks)
    packing = (32, s, pitch)
    if width < 8:
        packing = (width, lines, pitch)
        k, centroids = 1 << width, _padded(centroids, 1 << width)
    stride = out.stride(0)
    target = out.detach().as_strided(((m - 1) * stride + s * d,), (1,)).numpy()
    aligned = target.ctypes.data % _LINE_BYTES == 0 and stride * target.itemsize % _LINE_BYTES == 0
    past_caches = aligned and target.nbytes >= _STREAMED
    blocks = max(BAND, _VALUES // (m * d * BAND) * BAND)
    height = max(1, _VALUES // (min(blocks, s) * d))

    def work(corner: tuple[int, int]) -> bool:
        block, row = corner
        return decode_blocks(
            narrow,
            wide,
            packing,
            stages,
            k,
            d,
            centroids.reshape(-1),
            books == 1,
            (block, min(block + blocks, s)),
            (row, min(row + height, m)),
            target,
            stride,
            past_caches,
        )

    corners = [(block, row) for block in range(0, s, blocks) for row in range(0, m, height)]
    _refuse_unknown(run_tasks(work, corners), k)
    return out


def _flat_lines(codes: Tensor) -> tuple[Tensor, int]:
    """Codes (s, stages, m) as a flat tensor, and how far apart their lines are: in the same memory
    if they are some rows of all."""
    s, stages, m = codes.shape
    pitch = codes.stride(0) if stages == 1 else codes.stride(1)
    if codes.stride(2) != 1 or pitch < m or codes.stride(0) != stages * pitch:
        codes, pitch = codes.contiguous(), m
    return codes.as_strided(((s * stages - 1) * pitch + m,), (1,)), pitch


def _padded(centroids: Floats, k: int) -> Floats:
    """Codebooks (books, stages, at most k, d), filled up with zeros."""
    books, stages, held, d = centroids.shape
    if held == k:
        return centroids
    padded = np.zeros((books, stages, k, d), np.float32)
    padded[:, :, :held] = centroids
    return padded


def _decode_scalars(codes: Tensor, centroids: Tensor, out: Tensor) -> Tensor:
    narrow, wide = narrow_and_wide(codes.detach().contiguous().view(-1))
    values: Floats = as_float32(centroids)
    target = out.detach().view(-1).numpy()

    looks_up = HAS_BYTE_TABLES and len(narrow) > 0 and len(values) <= _BYTES and is_exact(values)
    planes = byte_planes(values) if looks_up else None

    def work(start: int) -> bool:
        stop = min(start + _VALUES, len(target))
        if planes is None:
            return decode_values(narrow, wide, start, stop, values, target)
        decode_bytes(narrow, start, stop, planes, values, target, start)
        return bool(narrow[start:stop].max() < len(values))

    _refuse_unknown(run_tasks(work, range(0, len(target), _VALUES)), len(values))
    return out


def _refuse_unknown(known: list[bool], k: int) -> None:
    if not all(known):
        raise ValueError(f"a code is out of range: there are {k} centroids")

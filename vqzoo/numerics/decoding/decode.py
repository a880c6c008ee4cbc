"""From codes back to weights, in parallel, into a buffer that the caller owns.

Each decoder reads codes as they come from k-means, or, named `..._stream`, straight from a packed
bit stream of the same codes in the same order: no task unpacks more than it is about to decode.
Where `out` is on another device than the CPU, so are codes and codebooks, and streams are unpacked
on the CPU.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqzoo.numerics.accelerated.torch_decode import (
    decode_blocks_elsewhere,
    decode_scalars_elsewhere,
)
from vqzoo.numerics.arrays import Floats, as_float32, narrow_and_wide
from vqzoo.numerics.coding.bits import check_stream, unpack
from vqzoo.numerics.kernels.decode_kernels import BAND, decode_blocks, decode_values
from vqzoo.numerics.threads import run_tasks

_VALUES = 1 << 21  # values a task
_BYTES = 64  # of a cache line


@dataclass(frozen=True)
class _Codes:
    """Codes as kernels take them: see `decode_kernels`."""

    stream: NDArray[np.uint8]
    bits: int
    wide: NDArray[np.int32]

    @property
    def packed(self) -> bool:
        """Whether they are to be unpacked."""
        return len(self.wide) == 0 and self.bits != 8


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
    return _decode(_given(codes), s, codebooks, out)


def decode_residual_stream(
    stream: Tensor, bits: int, codebooks: Tensor, s: int, out: Tensor
) -> Tensor:
    """`decode_residual` of a bit stream of its codes, in their order (s, stages, m)."""
    m, stages = out.shape[0], codebooks.shape[1]
    if out.device.type != "cpu":
        codes = unpack(stream, bits, s * stages * m).view(s, stages, m)
        return decode_residual(codes.to(out.device), codebooks, out)
    check_stream(stream, bits, s * stages * m)
    return _decode(_packed(stream, bits), s, codebooks, out)


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
    return _decode_scalar(_given(codes), centroids, out)


def decode_scalar_stream(stream: Tensor, bits: int, centroids: Tensor, out: Tensor) -> Tensor:
    """`decode_scalar` of a bit stream of as many codes as `out` has values."""
    if out.device.type != "cpu":
        codes = unpack(stream, bits, out.numel()).to(out.device)
        return decode_scalar(codes, centroids, out)
    check_stream(stream, bits, out.numel())
    return _decode_scalar(_packed(stream, bits), centroids, out)


def _given(codes: Tensor) -> _Codes:
    narrow, wide = narrow_and_wide(codes.detach().contiguous().view(-1))
    return _Codes(narrow, 8, wide)


def _packed(stream: Tensor, bits: int) -> _Codes:
    return _Codes(stream.detach().contiguous().numpy(), bits, np.empty(0, np.int32))


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


def _decode(codes: _Codes, s: int, codebooks: Tensor, out: Tensor) -> Tensor:
    books, stages, k, d = codebooks.shape
    m = out.shape[0]
    _check_blocks(s, codebooks, out)
    if out.numel() == 0:
        return out
    values = as_float32(codebooks).reshape(-1)
    stride = out.stride(0)
    target = out.detach().as_strided(((m - 1) * stride + s * d,), (1,)).numpy()
    aligned = target.ctypes.data % _BYTES == 0 and stride * target.itemsize % _BYTES == 0
    width = max(BAND, _VALUES // (m * d * BAND) * BAND)
    height = m if codes.packed else max(1, _VALUES // (min(width, s) * d))

    def work(span: tuple[int, int]) -> bool:
        block, row = span
        return decode_blocks(
            codes.stream,
            codes.bits,
            codes.wide,
            m,
            stages,
            k,
            d,
            values,
            books == 1,
            (block, min(block + width, s)),
            (row, min(row + height, m)),
            target,
            stride,
            aligned,
        )

    spans = [(block, row) for block in range(0, s, width) for row in range(0, m, height)]
    _refuse_unknown(run_tasks(work, spans), k)
    return out


def _decode_scalar(codes: _Codes, centroids: Tensor, out: Tensor) -> Tensor:
    _check_scalars(out)
    values: Floats = as_float32(centroids)
    target = out.detach().view(-1).numpy()

    def work(start: int) -> bool:
        stop = min(start + _VALUES, len(target))
        return decode_values(codes.stream, codes.bits, codes.wide, start, stop, values, target)

    _refuse_unknown(run_tasks(work, range(0, len(target), _VALUES)), len(values))
    return out


def _refuse_unknown(known: list[bool], k: int) -> None:
    if not all(known):
        raise ValueError(f"a code is out of range: there are {k} centroids")

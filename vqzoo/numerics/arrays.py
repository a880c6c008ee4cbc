"""Conversions between torch's tensors and the numpy arrays that kernels work on."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqzoo.numerics.threads import one_torch_thread, run_tasks

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Codes = NDArray[np.int32]
NarrowCodes = NDArray[np.uint8]
Bytes = NDArray[np.uint8]

_CHUNK = 1 << 21  # values a task
_HUGE = 1 << 22  # bytes; numpy asks for huge pages from here on
_ALIGNMENT = 64  # bytes, as in torch


def as_float32(tensor: Tensor) -> Floats:
    """A tensor as a C-contiguous float32 array, which shares its memory if it already is one.

    The conversion runs in the calling thread alone; torch would start a thread pool for it.
    """
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        bits = tensor.contiguous().view(torch.int16).numpy().view(np.uint16)
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return np.ascontiguousarray(tensor.numpy(), dtype=np.float32)


def row_chunk(columns: int) -> int:
    """The number of rows to work on at a time, about 4 MiB of float32."""
    return -(-(1 << 20) // max(1, columns))


def row_chunks(matrix: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield some rows of a matrix at a time, each with a buffer of the same shape.

    The buffer is the same for all: temporaries allocated one by one fragment the heap by more than
    the size of the matrix.
    """
    chunk = min(row_chunk(matrix.shape[1]), matrix.shape[0])
    buffer = matrix.new_empty(chunk, matrix.shape[1])
    for rows in matrix.split(chunk):
        yield rows, buffer[: len(rows)]


def all_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite; allocates nothing of the tensor's size."""
    if tensor.device.type != "cpu" or not tensor.is_contiguous() or tensor.numel() <= _CHUNK:
        return _chunk_finite(tensor)
    with one_torch_thread():
        return all(run_tasks(_chunk_finite, tensor.detach().view(-1).split(_CHUNK)))


def exact_half(values: Tensor, dtype: torch.dtype = torch.float16) -> Tensor | None:
    """float32 values in a half precision that holds each of them exactly; None if it does not."""
    half = values.to(dtype)
    return half if torch.equal(half.float(), values) else None


def _chunk_finite(values: Tensor) -> bool:
    if not values.numel():
        return True
    low, high = torch.aminmax(values.detach())
    return math.isfinite(low) and math.isfinite(high)


def peak_exponent(tensor: Tensor) -> int:
    """The e for which 2^(e-1) <= max |x| < 2^e; 0 where all values are zero."""
    low, high = torch.aminmax(tensor)
    return math.frexp(max(-float(low), float(high)))[1]


def excess_exponent(tensor: Tensor) -> int:
    """The `peak_exponent` of a tensor whose largest value is beyond 2^32 or below 2^-32, else 0.

    Sums of products of such values may leave float32. `times_power(tensor, -exponent)` does not
    have this problem.
    """
    exponent = peak_exponent(tensor)
    return exponent if abs(exponent) > 32 else 0


def times_power(tensor: Tensor, exponent: int) -> Tensor:
    """A float32 tensor times 2^exponent, for powers beyond float32, too."""
    return (tensor.double() * 2.0**exponent).float()


def code_dtype(k: int) -> torch.dtype:
    """The dtype of codes below k: uint8 up to k = 256, else int32."""
    return torch.uint8 if k <= 256 else torch.int32


def empty_codes(shape: tuple[int, ...], k: int) -> Tensor:
    """Uninitialized codes of the dtype that k needs."""
    return empty(shape, code_dtype(k), torch.device("cpu"))


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """`torch.empty`, with faster first use of large memory.

    The first use of each page of memory costs a page fault. A matrix of 151 MB has 37,000 pages of
    4 KiB, which take longer than scalar k-means on it. numpy asks Linux for huge pages, torch does
    not.
    """
    size = dtype.itemsize * math.prod(shape)
    if device.type != "cpu" or size < _HUGE:
        return torch.empty(shape, dtype=dtype, device=device)
    buffer = np.empty(size + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return torch.from_numpy(buffer[start : start + size]).view(dtype).view(shape)


def narrow_and_wide(codes: Tensor) -> tuple[NarrowCodes, Codes]:
    """Codes as the pair of arrays that kernels take; the array of the other width is empty.

    That way one compiled kernel serves both widths.
    """
    empty = (0,) * codes.dim()
    if codes.dtype == torch.uint8:
        return codes.numpy(), np.empty(empty, np.int32)
    return np.empty(empty, np.uint8), codes.numpy()

"""Between torch's tensors and the numpy arrays that kernels read."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float32]

_HUGE = 1 << 22  # bytes, from which on numpy asks for huge pages
_ALIGNMENT = 64  # bytes: torch's


def as_float32(tensor: Tensor) -> Floats:
    """A tensor as a C-contiguous float32 array: shared where it is one already, on the CPU.

    Converts in the calling thread alone (torch would start a pool of its own).
    """
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        bits = tensor.contiguous().view(torch.int16).numpy().view(np.uint16)
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return np.ascontiguousarray(tensor.numpy(), dtype=np.float32)


def row_chunk(columns: int) -> int:
    """Rows of a matrix to work on at a time, some 4 MiB of float32."""
    return -(-(1 << 20) // max(1, columns))


def row_chunks(matrix: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Some rows of a matrix at a time, and room for as many.

    The room is the same for all: temporaries allocated one by one fragment the heap, by more than
    the matrix takes.
    """
    chunk = min(row_chunk(matrix.shape[1]), matrix.shape[0])
    room = matrix.new_empty(chunk, matrix.shape[1])
    for rows in matrix.split(chunk):
        yield rows, room[: len(rows)]


def all_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite; without temporaries of the tensor's size."""
    if not tensor.numel():
        return True
    return bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())


def code_dtype(k: int) -> torch.dtype:
    """The dtype of codes below k: uint8 to 256, else int32."""
    return torch.uint8 if k <= 256 else torch.int32


def empty_codes(shape: tuple[int, ...], k: int) -> Tensor:
    """Codes yet to be written, of the dtype that k asks for."""
    return empty(shape, code_dtype(k), torch.device("cpu"))


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """`torch.empty`, whose memory comes faster where it is large.

    Memory that is used for the first time costs a page fault for each page, and pages are small:
    37,000 of them for a matrix of 151 MB, which take longer than k-means on it. numpy asks Linux
    for huge pages, torch does not.
    """
    size = dtype.itemsize * math.prod(shape)
    if device.type != "cpu" or size < _HUGE:
        return torch.empty(shape, dtype=dtype, device=device)
    buffer = np.empty(size + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return torch.from_numpy(buffer[start : start + size]).view(dtype).view(shape)


def narrow_and_wide(codes: Tensor) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Codes as the pair of arrays that kernels take, the one that they are not being empty.

    One compiled kernel so serves both widths.
    """
    none = (0,) * codes.dim()
    if codes.dtype == torch.uint8:
        return codes.numpy(), np.empty(none, np.int32)
    return np.empty(none, np.uint8), codes.numpy()

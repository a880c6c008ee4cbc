"""Entropy-coded streams in chunks that are decoded independently of each other.

Behind a stream's head lie the sizes in bytes of all chunks but the last, uint32 little-endian,
and then the chunks. All but the last hold 2^c codes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bytes = NDArray[np.uint8]

_MIN, _MAX = 18, 24  # c: large enough for what a chunk costs, small enough for 16 threads
_BITS = 1 << 17  # that a chunk should have, where its 2^c codes may grow in number


@dataclass(frozen=True)
class Chunk:
    """Where a chunk lies.

    Attributes:
        codes: which codes it holds.
        data: its bytes.
    """

    codes: slice
    data: Bytes


def chunk_exponent(count: int, bits: float) -> int:
    """c for `count` codes that take `bits` bits: chunks of 128 kbit, or of 2^18 codes, if more."""
    c = _MIN
    while c < _MAX and bits * (1 << c) < count * _BITS:
        c += 1
    return c


def chunk_slices(count: int, c: int) -> list[slice]:
    """The codes of each chunk."""
    return [slice(start, min(start + (1 << c), count)) for start in range(0, count, 1 << c)]


def join(head: Sequence[Bytes], chunks: Sequence[Bytes]) -> Tensor:
    """The stream of these chunks, (bytes,) uint8."""
    sizes = np.array([len(chunk) for chunk in chunks[:-1]], "<u4").view(np.uint8)
    return torch.from_numpy(np.concatenate([*head, sizes, *chunks]))


def split(stream: Bytes, at: int, count: int, c: int) -> list[Chunk]:
    """The chunks of `count` >= 1 codes in a stream of any origin, whose head ends at `at`.

    Raises:
        ValueError: c is out of range, or the stream is too short for its chunks.
    """
    if not _MIN <= c <= _MAX:
        raise ValueError(f"chunks of 2^{c} codes: 2^{_MIN} to 2^{_MAX} are known")
    number = -(-count >> c)
    start = at + 4 * (number - 1)
    if start > len(stream):
        raise ValueError("the stream ends before its chunks")
    sizes = np.frombuffer(stream[at:start].tobytes(), "<u4").astype(np.int64)
    ends = np.concatenate([start + np.cumsum(sizes), [len(stream)]])
    if number > 1 and ends[-2] > len(stream):
        raise ValueError("the stream ends within its chunks")
    starts = np.concatenate([[start], ends[:-1]])
    return [
        Chunk(codes, stream[begin:end])
        for codes, begin, end in zip(chunk_slices(count, c), starts, ends, strict=True)
    ]


def stream_array(stream: Tensor, count: int) -> Bytes:
    """A stream as a numpy array.

    Raises:
        ValueError: it is not 1-D uint8, or `count` is negative.
    """
    if count < 0:
        raise ValueError(f"the number of codes must not be negative, not {count}")
    if stream.dtype != torch.uint8 or stream.dim() != 1:
        raise ValueError(f"a stream is 1-D uint8, not {stream.dim()}-D {stream.dtype}")
    return stream.detach().cpu().contiguous().numpy()

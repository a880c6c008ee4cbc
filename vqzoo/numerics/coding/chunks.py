"""Entropy-coded streams in chunks that are decoded independently of each other.

Behind a stream's head lie the sizes in bytes of all chunks but the last, uint32 little-endian,
and then the chunks. All but the last hold 2^c codes.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqzoo.numerics.arrays import empty_codes
from vqzoo.numerics.threads import run_tasks

Bytes = NDArray[np.uint8]

_MIN, _MAX = 18, 24  # c: large enough for what a chunk costs, small enough for 16 threads
_BITS = 1 << 17  # that a chunk should have, where its 2^c codes may grow in number


def chunk_exponent(count: int, bits: float) -> int:
    """c for `count` codes that take `bits` bits: chunks of 128 kbit, or of 2^18 codes, if more."""
    c = _MIN
    while c < _MAX and bits * (1 << c) < count * _BITS:
        c += 1
    return c


def join(head: Sequence[Bytes], chunks: Sequence[Bytes]) -> Tensor:
    """The stream of these chunks, (bytes,) uint8."""
    sizes = np.array([len(chunk) for chunk in chunks[:-1]], "<u4").view(np.uint8)
    return torch.from_numpy(np.concatenate([*head, sizes, *chunks]))


def encode_chunks(
    head: Sequence[Bytes], codes: Tensor, c: int, encode: Callable[[NDArray[np.int32]], Bytes]
) -> Tensor:
    """The stream of all codes, (bytes,) uint8; `encode` makes a chunk of its codes."""
    flat = codes.detach().cpu().reshape(-1).numpy()

    def work(part: slice) -> Bytes:
        return encode(flat[part].astype(np.int32))

    return join(head, run_tasks(work, _slices(len(flat), c)))


def open_stream(stream: Tensor, cardinality: int, count: int, fixed: int) -> tuple[Bytes, Tensor]:
    """A stream of any origin as a numpy array, and room for its codes, as `empty_codes` makes it.

    Args:
        stream: as it is given to be unpacked.
        cardinality: number of symbols.
        count: number of codes.
        fixed: bytes of the head before its table; a stream of no codes has none.

    Raises:
        ValueError: it is not 1-D uint8, `count` is negative, or the head cannot be whole.
    """
    if count < 0:
        raise ValueError(f"the number of codes must not be negative, not {count}")
    if stream.dtype != torch.uint8 or stream.dim() != 1:
        raise ValueError(f"a stream is 1-D uint8, not {stream.dim()}-D {stream.dtype}")
    data = stream.detach().cpu().contiguous().numpy()
    codes = empty_codes((count,), cardinality)
    if count == 0 and len(data):
        raise ValueError("a stream of no codes is empty")
    if count and len(data) < fixed:
        raise ValueError("the stream ends within its head")
    return data, codes


def decode_chunks(
    stream: Bytes, at: int, count: int, c: int, decode: Callable[[Bytes, slice], bool]
) -> None:
    """Decode the chunks of `count` >= 1 codes in a stream of any origin, whose head ends at `at`.

    `decode` takes a chunk, and which codes it holds; it says whether the chunk is whole.

    Raises:
        ValueError: c is out of range, the stream is too short for its chunks, or one of them is
            damaged.
    """

    def work(chunk: tuple[Bytes, slice]) -> None:
        data, part = chunk
        if not decode(data, part):
            raise ValueError(f"the chunk of codes {part.start} to {part.stop - 1} is damaged")

    run_tasks(work, _split(stream, at, count, c))


def _slices(count: int, c: int) -> list[slice]:
    """The codes of each chunk."""
    return [slice(start, min(start + (1 << c), count)) for start in range(0, count, 1 << c)]


def _split(stream: Bytes, at: int, count: int, c: int) -> list[tuple[Bytes, slice]]:
    """The chunks of a stream, and the codes of each."""
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
    chunks = [stream[begin:end] for begin, end in zip(starts, ends, strict=True)]
    return list(zip(chunks, _slices(count, c), strict=True))

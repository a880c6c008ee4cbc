"""Entropy-coded streams in chunks that can be decoded independently of each other.

After a stream's head come the sizes in bytes of all chunks but the last, uint32 little-endian, and
then the chunks. All but the last hold 2^c codes.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from vqzoo.numerics.arrays import Bytes, Codes, empty_codes
from vqzoo.numerics.threads import run_tasks

_MIN, _MAX = 18, 24  # bounds of c: chunks large enough to be cheap, small enough for 16 threads
_BITS = 1 << 17  # bits that a chunk should have at least, unless c reaches its bound


def chunk_exponent(count: int, bits: float) -> int:
    """c for `count` codes that take `bits` bits: chunks of 128 kbit or 2^18 codes, the larger."""
    c = _MIN
    while c < _MAX and bits * (1 << c) < count * _BITS:
        c += 1
    return c


def join(head: Sequence[Bytes], chunks: Sequence[Bytes]) -> Tensor:
    """Join head and chunks into a stream, (bytes,) uint8."""
    sizes = np.array([len(chunk) for chunk in chunks[:-1]], "<u4").view(np.uint8)
    return torch.from_numpy(np.concatenate([*head, sizes, *chunks]))


def encode_chunks(
    head: Sequence[Bytes], codes: Tensor, c: int, encode: Callable[[Codes], Bytes]
) -> Tensor:
    """The stream of all codes, (bytes,) uint8; `encode` turns the codes of a chunk into bytes."""
    flat = codes.detach().cpu().reshape(-1).numpy()

    def work(part: slice) -> Bytes:
        return encode(flat[part].astype(np.int32))

    return join(head, run_tasks(work, _slices(len(flat), c)))


def open_stream(stream: Tensor, cardinality: int, count: int, fixed: int) -> tuple[Bytes, Tensor]:
    """An untrusted stream as a numpy array, and a buffer for its codes (see `empty_codes`).

    Args:
        stream: the stream to unpack.
        cardinality: number of symbols.
        count: number of codes.
        fixed: bytes of the head before its table; a stream of no codes has no head.

    Raises:
        ValueError: the stream is not 1-D uint8 or ends within its head, or `count` is negative.
    """
    if count < 0:
        raise ValueError(f"the number of codes must not be negative, not {count}")
    if stream.dtype != torch.uint8 or stream.dim() != 1:
        raise ValueError(f"a stream must be 1-D uint8, not {stream.dim()}-D {stream.dtype}")
    data = stream.detach().cpu().contiguous().numpy()
    codes = empty_codes((count,), cardinality)
    if count == 0 and len(data):
        raise ValueError("a stream of no codes must be empty")
    if count and len(data) < fixed:
        raise ValueError("the stream ends within its head")
    return data, codes


def decode_chunks(
    stream: Bytes, at: int, count: int, c: int, decode: Callable[[Bytes, slice], bool]
) -> None:
    """Decode the chunks of `count` >= 1 codes in an untrusted stream whose head ends at `at`.

    `decode` takes a chunk and the slice of its codes, and returns whether the chunk is intact.

    Raises:
        ValueError: c is out of range, the stream is too short for its chunks, or a chunk is
            damaged.
    """

    def work(chunk: tuple[Bytes, slice]) -> None:
        data, part = chunk
        if not decode(data, part):
            raise ValueError(f"the chunk of codes {part.start} to {part.stop - 1} is damaged")

    run_tasks(work, _split(stream, at, count, c))


def _slices(count: int, c: int) -> list[slice]:
    """The slice of codes of each chunk."""
    return [slice(start, min(start + (1 << c), count)) for start in range(0, count, 1 << c)]


def _split(stream: Bytes, at: int, count: int, c: int) -> list[tuple[Bytes, slice]]:
    """The chunks of a stream, each with the slice of its codes."""
    if not _MIN <= c <= _MAX:
        raise ValueError(f"chunks of 2^{c} codes are not within 2^{_MIN} to 2^{_MAX}")
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

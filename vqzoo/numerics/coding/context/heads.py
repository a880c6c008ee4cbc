"""What the heads of streams share: classes of rows and columns, padding, sizes of chunks."""

import numpy as np
import torch
from torch import Tensor

from vqzoo.numerics.arrays import Bytes, Codes, empty_codes
from vqzoo.numerics.coding.context.classes import MAX_CLASSES
from vqzoo.numerics.coding.gamma import put_digits, put_gamma, take_digits, take_gamma


def open_stream(stream: Tensor, cardinality: int, rows: int, columns: int) -> tuple[Bytes, Tensor]:
    """An untrusted stream as a numpy array, and a buffer for its codes (see `empty_codes`).

    Raises:
        ValueError: the stream is not 1-D uint8, or not empty without codes; the shape is negative.
    """
    if stream.dtype != torch.uint8 or stream.dim() != 1:
        raise ValueError(f"a stream must be 1-D uint8, not {stream.dim()}-D {stream.dtype}")
    if rows < 0 or columns < 0:
        raise ValueError(f"a matrix cannot have {rows} rows and {columns} columns")
    data = stream.detach().cpu().contiguous().numpy()
    codes = empty_codes((rows, columns), cardinality)
    if len(data) and not codes.numel():
        raise ValueError("a stream of no codes must be empty")
    return data, codes


def put_classes(stream: Bytes, at: int, members: Codes, number: int) -> int:
    """Write the number of classes, and those of the members; return the bit after them."""
    at = put_gamma(stream, at, number)
    return int(put_digits(stream, at, number, members) if number > 1 else at)


def take_classes(
    stream: Bytes, at: int, members: int, limit: int = MAX_CLASSES
) -> tuple[Codes, int, int]:
    """The classes of the members, (members,) int32, how many there are, and the bit after them.

    Raises:
        ValueError: they are truncated or out of range.
    """
    number, at = take_gamma(stream, at)
    if at < 0 or not 1 <= number <= limit:
        raise ValueError("the stream's classes are malformed")
    classes = np.zeros(members, np.int32)
    if number > 1:
        at = take_digits(stream, at, number, classes)
    if at < 0:
        raise ValueError("the stream's classes are malformed")
    return classes, int(number), int(at)


def check_padding(data: Bytes, at: int) -> None:
    """Raise ValueError if the last byte of the head has bits set behind bit `at`."""
    if at % 8 and int(data[at // 8]) >> at % 8:
        raise ValueError("the padding bits of the head are not zero")


def split(data: Bytes, at: int, parts: list[slice]) -> list[tuple[Bytes, slice]]:
    """The chunks of a stream whose head takes `at` bytes, and the rows of each.

    Raises:
        ValueError: the stream is too short.
    """
    start = at + 4 * (len(parts) - 1)
    if start > len(data):
        raise ValueError("the stream ends before its chunks")
    sizes = np.frombuffer(data[at:start].tobytes(), "<u4").astype(np.int64)
    starts = start + np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    if starts[-1] > len(data):
        raise ValueError("the stream ends within its chunks")
    ends = np.append(starts[1:], len(data))
    chunks = [data[begin:end] for begin, end in zip(starts, ends, strict=True)]
    return list(zip(chunks, parts, strict=True))

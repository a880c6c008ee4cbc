"""Streams of codes of a matrix, by the classes of rows and columns.

A head of bits: the symbols in use, whether codes are those of a trellis, lanes, the classes of rows
and columns, the tables of prices. Then the chunks, each some whole rows.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqzoo.numerics.arrays import Bytes, Codes, Ints, empty_codes
from vqzoo.numerics.coding.chunks import join
from vqzoo.numerics.coding.context.classes import MAX_CLASSES, Classes, classify
from vqzoo.numerics.coding.context.prices import read_prices, table_bound, write_prices
from vqzoo.numerics.coding.context.rans import decode_rows, decode_walks, encode_rows, tables
from vqzoo.numerics.coding.context.walks import walk_parities
from vqzoo.numerics.coding.entropy import symbol_counts
from vqzoo.numerics.coding.gamma import put, put_digits, put_gamma, take, take_digits, take_gamma
from vqzoo.numerics.kernels.feedback.trellis import NEXT, SEGMENT
from vqzoo.numerics.threads import run_tasks

_CHUNK = 1 << 18  # codes that a chunk holds at least, unless it is the last
_LANES = 4
_SMALL = 1 << 16  # bits of a stream below which the states of four lanes take too much of it
_MAX_ENTRIES = 1 << 18  # frequencies of all cells: a table for two states of 65,536 symbols
_MIN_WALK = 2 * SEGMENT  # codes below which the walk of a trellis is not tried


@dataclass(frozen=True)
class _Head:
    """The head of a stream.

    Attributes:
        size: bytes of the head.
        low: the first symbol in use.
        lanes: 1 or 4.
        walks: whether codes are those of a trellis.
        parity: that of the code of level 0.
        row_cells: (m,) int32.
        column_cells: (n,) int32.
        freqs: (cells, symbols) int64.
    """

    size: int
    low: int
    lanes: int
    walks: bool
    parity: int
    row_cells: Codes
    column_cells: Codes
    freqs: Ints


def pack(codes: Tensor, cardinality: int) -> Tensor:
    """Pack a matrix of codes.

    Args:
        codes: (m, n), any integer dtype, 0 <= code < cardinality.
        cardinality: number of symbols, 1 to 65,536.

    Returns:
        (bytes,) uint8 on the CPU; empty for no codes.

    Raises:
        ValueError: a code is out of range.
    """
    used = np.flatnonzero(symbol_counts(codes, cardinality))
    if not len(used):
        return torch.empty(0, dtype=torch.uint8)
    low, symbols = int(used[0]), int(used[-1] - used[0] + 1)
    if symbols == 1:
        stream = np.zeros(16, np.uint8)
        at = put_gamma(stream, put_gamma(stream, 0, 1 + low), symbols)
        return torch.from_numpy(stream[: (at + 7) // 8].copy())
    matrix = codes.detach().cpu().numpy().astype(np.int32) - np.int32(low)
    classes, states, parity = _best_contexts(matrix, symbols, cardinality // 2 - low)
    lanes = _LANES if classes.bits >= _SMALL else 1
    stream = np.zeros(_head_bound(classes), np.uint8)
    at = put_gamma(stream, put_gamma(stream, 0, 1 + low), symbols)
    row_number, column_number, kinds, _ = classes.counts.shape
    at = put(stream, at, int(lanes == _LANES) | (kinds - 1) << 1 | parity << 2, 3)
    at = _put_classes(stream, at, classes.rows, row_number)
    at = _put_classes(stream, at, classes.columns, column_number)
    counts = classes.counts.reshape(-1, symbols)
    mode = int(counts.sum(0).argmax())
    at, freqs = write_prices(stream, put_gamma(stream, at, 1 + mode), mode, counts)
    starts = np.cumsum(freqs, 1) - freqs
    wide = freqs.astype(np.uint64), starts.astype(np.uint64)
    row_cells = classes.rows * np.int32(column_number * kinds)
    column_cells = classes.columns * np.int32(kinds)

    def encode(part: slice) -> Bytes:
        rows = matrix[part]
        words = np.empty(rows.size + 2 * lanes, np.uint32)
        begin = encode_rows(rows, states[part], row_cells[part], column_cells, *wide, lanes, words)
        return words[begin:].astype("<u4").view(np.uint8)

    return join([stream[: (at + 7) // 8]], run_tasks(encode, _chunks(*matrix.shape)))


def unpack(stream: Tensor, cardinality: int, rows: int, columns: int) -> Tensor:
    """The codes of a stream of any origin.

    Memory and time are those of the codes, which the stream does not bound: the caller does.

    Returns:
        (rows, columns), uint8 where cardinality <= 256, else int32; below `cardinality`.

    Raises:
        ValueError: `pack` would not write the stream.
    """
    if stream.dtype != torch.uint8 or stream.dim() != 1:
        raise ValueError(f"a stream must be 1-D uint8, not {stream.dim()}-D {stream.dtype}")
    if rows < 0 or columns < 0:
        raise ValueError(f"a matrix cannot have {rows} rows and {columns} columns")
    data = stream.detach().cpu().contiguous().numpy()
    codes = empty_codes((rows, columns), cardinality)
    if not codes.numel():
        if len(data):
            raise ValueError("a stream of no codes must be empty")
        return codes
    head = _read_head(data, cardinality, rows, columns)
    if isinstance(head, int):
        return codes.fill_(head)
    entries, hints = tables(head.freqs)
    array = codes.numpy()

    def decode(chunk: tuple[Bytes, slice]) -> None:
        content, part = chunk
        length = len(content) // 4
        whole = len(content) % 4 == 0 and length >= 2 * head.lanes
        if whole:
            words = np.zeros(length + columns, np.uint32)
            words[:length] = np.frombuffer(content.tobytes(), "<u4")
            common = words, length, head.lanes, head.row_cells[part], head.column_cells
            if head.walks:
                whole = decode_walks(*common, head.parity, NEXT, entries, hints, array[part])
            else:
                whole = decode_rows(*common, entries, hints, array[part])
        if not whole:
            raise ValueError(f"the chunk of rows {part.start} to {part.stop - 1} is damaged")

    run_tasks(decode, _split(data, head.size, rows, columns))
    return codes.add_(head.low) if head.low else codes


def _best_contexts(
    matrix: Codes, symbols: int, zero: int
) -> tuple[Classes, NDArray[np.uint8], int]:
    """The classes with which a matrix takes the fewest bits, the states of its codes (all zero, or
    those of a trellis where that pays), and the parity of the code of level 0."""
    states = np.zeros(matrix.shape, np.uint8)
    if matrix.size >= _MIN_WALK and symbols > 2:
        odd = walk_parities(matrix, zero)
        if classify(matrix, odd, symbols, 1).bits < classify(matrix, states, symbols, 1).bits:
            return classify(matrix, odd, symbols), odd, zero & 1
    return classify(matrix, states, symbols), states, 0


def _chunks(rows: int, columns: int) -> list[slice]:
    """The rows of each chunk: whole segments of a trellis in all but the last."""
    step = SEGMENT * -(-_CHUNK // (SEGMENT * columns))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def _split(data: Bytes, at: int, rows: int, columns: int) -> list[tuple[Bytes, slice]]:
    """The chunks of a stream whose head takes `at` bytes, and the rows of each.

    Raises:
        ValueError: the stream is too short.
    """
    parts = _chunks(rows, columns)
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


def _head_bound(classes: Classes) -> int:
    """Bytes that a head takes at most."""
    symbols = classes.counts.shape[3]
    members = len(classes.rows) + len(classes.columns)
    return (4 * members + table_bound(classes.counts.size // symbols, symbols)) // 8 + 64


def _put_classes(stream: Bytes, at: int, members: Codes, number: int) -> int:
    """Write the number of classes, and those of the members; return the bit after them."""
    at = put_gamma(stream, at, number)
    return int(put_digits(stream, at, number, members) if number > 1 else at)


def _take_classes(stream: Bytes, at: int, members: int) -> tuple[Codes, int, int]:
    """The classes of the members, how many there are, and the bit after them.

    Raises:
        ValueError: they are truncated or out of range.
    """
    number, at = take_gamma(stream, at)
    if at < 0 or not 1 <= number <= MAX_CLASSES:
        raise ValueError("the stream's classes are malformed")
    classes = np.zeros(members, np.int32)
    if number > 1:
        at = take_digits(stream, at, number, classes)
    if at < 0:
        raise ValueError("the stream's classes are malformed")
    return classes, int(number), int(at)


def _read_head(data: Bytes, cardinality: int, rows: int, columns: int) -> _Head | int:
    """The head of a stream of at least one code; of a single symbol, the symbol.

    Raises:
        ValueError: there is none.
    """
    first, at = take_gamma(data, 0)
    symbols, at = take_gamma(data, at)
    low = first - 1
    # Each symbol takes at least a bit: nothing is allocated that the stream could not fill.
    if at < 0 or low + symbols > cardinality or symbols > max(1, 8 * len(data)):
        raise ValueError("the stream's symbols are malformed")
    if symbols == 1:
        _check_padding(data, at)
        if len(data) != (at + 7) // 8:
            raise ValueError("a stream of one symbol has chunks")
        return int(low)
    flags, at = take(data, at, 3)
    row_classes, row_number, at = _take_classes(data, at, rows)
    column_classes, column_number, at = _take_classes(data, at, columns)
    kinds = 1 + (flags >> 1 & 1)
    if kinds == 1 and flags >> 2:
        raise ValueError("the stream has the parity of a trellis, but no trellis")
    cells = row_number * column_number * kinds
    mode, at = take_gamma(data, at)
    if at < 0 or mode > symbols or cells * symbols > _MAX_ENTRIES:
        raise ValueError("the stream's tables are malformed")
    at, freqs = read_prices(data, at, mode - 1, cells, symbols)
    if at < 0:
        raise ValueError("the stream's tables are malformed")
    _check_padding(data, at)
    return _Head(
        size=(at + 7) // 8,
        low=int(low),
        lanes=_LANES if flags & 1 else 1,
        walks=kinds == 2,
        parity=flags >> 2,
        row_cells=row_classes * np.int32(column_number * kinds),
        column_cells=column_classes * np.int32(kinds),
        freqs=freqs,
    )


def _check_padding(data: Bytes, at: int) -> None:
    """Raise ValueError if the last byte of the head has bits set behind bit `at`."""
    if at % 8 and int(data[at // 8]) >> at % 8:
        raise ValueError("the padding bits of the head are not zero")

"""Reads streams of codes of a matrix, by the classes of rows and columns: version 1.

A head of bits: the symbols in use, whether codes are those of a trellis, lanes, the classes of rows
and columns, the tables of prices. Then the chunks, each some whole rows.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from vqzoo.numerics.arrays import Bytes, Codes, Ints
from vqzoo.numerics.coding.context.first.frequencies import LIMIT, frequencies
from vqzoo.numerics.coding.context.first.rans import decode_rows, decode_walks, tables
from vqzoo.numerics.coding.context.heads import check_padding, open_stream, split, take_classes
from vqzoo.numerics.coding.context.prices import read_prices
from vqzoo.numerics.coding.gamma import take, take_gamma
from vqzoo.numerics.kernels.feedback.trellis import NEXT, SEGMENT
from vqzoo.numerics.threads import run_tasks

_CHUNK = 1 << 18  # codes that a chunk holds at least, unless it is the last
_LANES = 4
_MAX_ENTRIES = 1 << 18  # frequencies of all cells: a table for two states of 65,536 symbols


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


def unpack(stream: Tensor, cardinality: int, rows: int, columns: int) -> Tensor:
    """The codes of a stream of any origin.

    Memory and time are those of the codes, which the stream does not bound: the caller does.

    Returns:
        (rows, columns), uint8 where cardinality <= 256, else int32; below `cardinality`.

    Raises:
        ValueError: no writer of version 1 would write the stream.
    """
    data, codes = open_stream(stream, cardinality, rows, columns)
    if not codes.numel():
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

    run_tasks(decode, split(data, head.size, _chunks(rows, columns)))
    return codes.add_(head.low) if head.low else codes


def _chunks(rows: int, columns: int) -> list[slice]:
    """The rows of each chunk: whole segments of a trellis in all but the last."""
    step = SEGMENT * -(-_CHUNK // (SEGMENT * columns))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


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
        check_padding(data, at)
        if len(data) != (at + 7) // 8:
            raise ValueError("a stream of one symbol has chunks")
        return int(low)
    flags, at = take(data, at, 3)
    row_classes, row_number, at = take_classes(data, at, rows)
    column_classes, column_number, at = take_classes(data, at, columns)
    kinds = 1 + (flags >> 1 & 1)
    if kinds == 1 and flags >> 2:
        raise ValueError("the stream has the parity of a trellis, but no trellis")
    cells = row_number * column_number * kinds
    mode, at = take_gamma(data, at)
    if at < 0 or mode > symbols or cells * symbols > _MAX_ENTRIES:
        raise ValueError("the stream's tables are malformed")
    at, prices = read_prices(data, at, mode - 1, LIMIT, cells, symbols)
    if at < 0:
        raise ValueError("the stream's tables are malformed")
    check_padding(data, at)
    return _Head(
        size=(at + 7) // 8,
        low=int(low),
        lanes=_LANES if flags & 1 else 1,
        walks=kinds == 2,
        parity=flags >> 2,
        row_cells=row_classes * np.int32(column_number * kinds),
        column_cells=column_classes * np.int32(kinds),
        freqs=frequencies(prices),
    )

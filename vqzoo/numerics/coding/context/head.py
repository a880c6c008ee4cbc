"""The head of a stream: what its chunks are decoded with.

Bits: a zero, the symbols in use, how they are coded, the classes of rows and columns, the table of
each cell, and the tables of prices.
"""

from dataclasses import dataclass

import numpy as np

from vqzoo.numerics.arrays import Bytes, Codes, Ints
from vqzoo.numerics.coding.context.buckets import reach
from vqzoo.numerics.coding.context.heads import check_padding, put_classes, take_classes
from vqzoo.numerics.coding.context.prices import read_prices, table_bound, write_prices
from vqzoo.numerics.coding.context.rans import LANES, SYMBOLS
from vqzoo.numerics.coding.context.tables import (
    MAX_TABLES,
    MIN_SCALE,
    frequencies,
    price_limit,
)
from vqzoo.numerics.coding.gamma import put, put_gamma, take, take_gamma


@dataclass(frozen=True)
class Coding:
    """How a matrix of codes, counted from the lowest in use, is coded.

    Attributes:
        low: the lowest code in use.
        size: of the range of codes, 2 or more.
        center: the code of bucket 0; -1 if symbols are codes.
        lanes: 1 or `rans.LANES`.
        parity: that of the symbol of level 0.
        segments: segments of rows in each chunk.
        scale: of the frequencies.
        rows, columns: classes, (m,) and (n,) int32.
        tables: the table of each cell, (row classes, column classes, parities) int32. With two
            parities, codes walk.
    """

    low: int
    size: int
    center: int
    lanes: int
    parity: int
    segments: int
    scale: int
    rows: Codes
    columns: Codes
    tables: Codes

    @property
    def symbols(self) -> int:
        """How many symbols tables have."""
        if self.center < 0:
            return self.size
        return int(reach(self.center) + reach(self.size - 1 - self.center)) + 1


def write_head(coding: Coding, counts: Ints) -> tuple[Bytes, Ints]:
    """The head's bytes, and the frequencies, (tables, symbols) int64, of counts of that shape."""
    number, symbols = counts.shape
    limit = price_limit(coding.scale)
    members = len(coding.rows) + len(coding.columns) + 2 * coding.tables.size
    bound = 4 * members + table_bound(number, symbols, limit)
    stream = np.zeros(bound // 8 + 64, np.uint8)
    row_number, column_number, kinds = coding.tables.shape
    at = put_gamma(stream, put_gamma(stream, 1, 1 + coding.low), coding.size)
    flags = (coding.lanes == LANES) | (kinds - 1) << 1 | coding.parity << 2
    at = put(stream, at, flags | (coding.center >= 0) << 3 | (coding.scale - MIN_SCALE) << 4, 7)
    if coding.center >= 0:
        at = put_gamma(stream, at, 1 + coding.center)
    at = put_gamma(stream, at, coding.segments)
    at = put_classes(stream, at, coding.rows, row_number)
    at = put_classes(stream, at, coding.columns, column_number)
    at = put_classes(stream, at, coding.tables.reshape(-1), number)
    mode = int(counts.sum(0).argmax())
    at, prices = write_prices(stream, put_gamma(stream, at, 1 + mode), mode, limit, counts)
    return stream[: (at + 7) // 8], frequencies(prices, coding.scale)


def read_head(
    data: Bytes, cardinality: int, rows: int, columns: int
) -> tuple[Coding, Ints, int] | int:
    """The head of an untrusted stream of at least one code.

    Returns:
        The coding, the frequencies, (tables, symbols) int64, and the bytes of the head; of a stream
        with a single symbol, the symbol.

    Raises:
        ValueError: there is none.
    """
    flag, at = take(data, 0, 1)
    first, at = take_gamma(data, at)
    size, at = take_gamma(data, at)
    low = int(first) - 1
    if at < 0 or flag or low + size > cardinality:
        raise ValueError("the stream's symbols are malformed")
    if size == 1:
        check_padding(data, at)
        if len(data) != (at + 7) // 8:
            raise ValueError("a stream of one symbol has chunks")
        return low
    flags, at = take(data, at, 7)
    center = 0
    if flags >> 3 & 1:
        center, at = take_gamma(data, at)
    segments, at = take_gamma(data, at)
    if at < 0 or center > size or (center == 0 and size > SYMBOLS):
        raise ValueError("the stream's symbols are malformed")
    row_classes, row_number, at = take_classes(data, at, rows)
    column_classes, column_number, at = take_classes(data, at, columns)
    kinds = 1 + (flags >> 1 & 1)
    if row_number > rows or column_number > columns:
        raise ValueError("the stream has more classes than rows or columns")
    if kinds == 1 and flags >> 2 & 1:
        raise ValueError("the stream has the parity of a trellis, but no trellis")
    cells = row_number * column_number * kinds
    tables, number, at = take_classes(data, at, cells, MAX_TABLES)
    coding = Coding(
        low=low,
        size=int(size),
        center=int(center) - 1,
        lanes=LANES if flags & 1 else 1,
        parity=flags >> 2 & 1,
        segments=int(segments),
        scale=MIN_SCALE + (flags >> 4),
        rows=row_classes,
        columns=column_classes,
        tables=tables.reshape(row_number, column_number, kinds),
    )
    mode, at = take_gamma(data, at)
    if at < 0 or mode > coding.symbols:
        raise ValueError("the stream's tables are malformed")
    limit = price_limit(coding.scale)
    at, prices = read_prices(data, at, mode - 1, limit, number, coding.symbols)
    if at < 0:
        raise ValueError("the stream's tables are malformed")
    check_padding(data, at)
    return coding, frequencies(prices, coding.scale), (at + 7) // 8

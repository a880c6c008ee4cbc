"""Streams of codes of a matrix, by the classes of rows and columns.

A head (see `head`), then the chunks, each some whole rows: the words of rANS, then, if symbols are
buckets, the bits that these leave open. Where the numbers of codes mean nothing, so that buckets
would mix what differs, a byte 1 and a stream of `ans`.
"""

import numpy as np
import torch
from torch import Tensor

from vqzoo.numerics.arrays import Bytes, Codes, Ints, NarrowCodes
from vqzoo.numerics.coding import ans
from vqzoo.numerics.coding.chunks import join
from vqzoo.numerics.coding.context.buckets import (
    from_symbols,
    levels,
    put_rests,
    rest_bits,
    to_symbols,
)
from vqzoo.numerics.coding.context.classes import Classes, classify
from vqzoo.numerics.coding.context.head import Coding, read_head, write_head
from vqzoo.numerics.coding.context.heads import open_stream, split
from vqzoo.numerics.coding.context.rans import LANES, SYMBOLS, decode, encode, lookups, places
from vqzoo.numerics.coding.context.tables import best_scale, share_tables
from vqzoo.numerics.coding.context.walks import walk_parities
from vqzoo.numerics.coding.entropy import symbol_counts
from vqzoo.numerics.coding.gamma import put_gamma
from vqzoo.numerics.kernels.feedback.trellis import SEGMENT
from vqzoo.numerics.threads import run_tasks

_CHUNK = 1 << 18  # codes that a chunk holds at least, unless the matrix is smaller
_CHUNK_BITS = 1 << 16  # and bits, about: the states of the lanes take 256 of them
_SMALL = 1 << 17  # bits of a stream below which the states of eight lanes take too much of it
_MIN_WALK = 2 * SEGMENT  # codes below which the walk of a trellis is not tried
_WORTH = 0.995  # of the bits: what buckets and walks must save, as they take time to decode
_SYMBOL_BITS = 20  # what another symbol takes in all tables, about


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
    counts = symbol_counts(codes, cardinality)
    used = np.flatnonzero(counts)
    if not len(used):
        return torch.empty(0, dtype=torch.uint8)
    low = int(used[0])
    counts = counts[low : used[-1] + 1]
    if len(counts) == 1:
        stream = np.zeros(16, np.uint8)
        at = put_gamma(stream, put_gamma(stream, 1, 1 + low), 1)
        return torch.from_numpy(stream[: (at + 7) // 8].copy())
    matrix = codes.detach().cpu().numpy().astype(np.int32) - np.int32(low)
    center = _center(counts)
    symbols = _symbols(matrix, center, len(counts))
    number = len(counts) if center < 0 else len(levels(center, len(counts))[0])
    classes, odd, parity = _contexts(matrix, symbols, number, cardinality // 2 - low)
    tables, shared = share_tables(classes.counts.reshape(-1, classes.counts.shape[3]))
    bits = classes.bits + (rest_bits(counts, center) if center >= 0 else 0)
    if len(counts) > SYMBOLS and _order_0(counts) < bits:
        return torch.cat([torch.ones(1, dtype=torch.uint8), ans.pack(codes, cardinality)])
    coding = Coding(
        low=low,
        size=len(counts),
        center=center,
        lanes=LANES if bits >= _SMALL else 1,
        parity=parity,
        segments=_segments(matrix.shape, bits),
        scale=best_scale(shared),
        rows=classes.rows,
        columns=classes.columns,
        tables=tables.reshape(classes.counts.shape[:3]),
    )
    head, freqs = write_head(coding, shared)
    by_column = _by_column(coding)
    wide = freqs.astype(np.uint64), (np.cumsum(freqs, 1) - freqs).astype(np.uint64)

    def work(part: slice) -> Bytes:
        rows = symbols[part]
        words = np.empty((rows.shape[1] + 1) // 2 * len(rows) + 2 * coding.lanes, np.uint32)
        how = coding.scale, coding.lanes, words
        begin = encode(rows, odd[part], coding.rows[part], by_column, *wide, *how)
        chunk = [words[begin:]]
        if center >= 0:
            rests = np.zeros(rows.size // 2 + 2, np.uint32)
            chunk.append(rests[: put_rests(matrix[part], center, rests)])
        return np.concatenate(chunk).astype("<u4").view(np.uint8)

    return join([head], run_tasks(work, _chunks(coding)))


def unpack(stream: Tensor, cardinality: int, rows: int, columns: int) -> Tensor:
    """The codes of a stream of any origin.

    Memory and time are those of the codes, which the stream does not bound: the caller does.

    Returns:
        (rows, columns), uint8 where cardinality <= 256, else int32; below `cardinality`.

    Raises:
        ValueError: `pack` would not write the stream.
    """
    data, codes = open_stream(stream, cardinality, rows, columns)
    if not codes.numel():
        return codes
    if len(data) and data[0] == 1:
        return ans.unpack(stream[1:], cardinality, rows * columns).reshape(rows, columns)
    head = read_head(data, cardinality, rows, columns)
    if isinstance(head, int):
        return codes.fill_(head)
    coding, freqs, start = head
    slots, entries = lookups(freqs, coding.scale)
    by_column = places(_by_column(coding), coding.scale)
    common = by_column, coding.parity, np.uint64(coding.scale), slots, entries
    meanings = levels(coding.center, coding.size) if coding.center >= 0 else None
    array = codes.numpy()

    def work(chunk: tuple[Bytes, slice]) -> None:
        content, part = chunk
        length = len(content) // 4
        whole = len(content) % 4 == 0 and length >= 2 * coding.lanes
        if whole:
            words = np.zeros(length + columns + 2, np.uint32)
            words[:length] = np.frombuffer(content.tobytes(), "<u4")
            out = array[part]
            narrow = array.dtype == np.uint8 and meanings is None
            symbols = out if narrow else np.empty(out.shape, np.uint8)
            lanes = words, length, coding.lanes, coding.rows[part]
            at = decode(*lanes, *common, symbols)
            if meanings is not None:
                rests = words, at, length, *meanings, coding.size
                whole = at >= 0 and from_symbols(symbols, *rests, out)
            else:
                whole = at == length
                if not narrow:
                    out[:] = symbols
        if not whole:
            raise ValueError(f"the chunk of rows {part.start} to {part.stop - 1} is damaged")

    run_tasks(work, split(data, start, _chunks(coding)))
    return codes.add_(coding.low) if coding.low else codes


def _center(counts: Ints) -> int:
    """The median code if buckets pay, else -1."""
    center = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
    if len(counts) > SYMBOLS:
        return center
    every = np.arange(len(counts), dtype=np.int32)[None]
    in_buckets = np.bincount(_symbols(every, center, len(counts))[0], counts).astype(np.int64)
    if _order_0(in_buckets) + rest_bits(counts, center) < _WORTH * _order_0(counts):
        return center
    return -1


def _order_0(counts: Ints) -> float:
    """What codes of these counts and the tables of their symbols take, about."""
    used = counts[counts > 0].astype(np.float64)
    return float((used * np.log2(used.sum() / used)).sum()) + _SYMBOL_BITS * len(used)


def _symbols(matrix: Codes, center: int, size: int) -> NarrowCodes:
    """The symbols of codes 0 ... size - 1, (m, n)."""
    if center < 0:
        return matrix.astype(np.uint8)
    symbols = np.empty(matrix.shape, np.uint8)
    to_symbols(matrix, center, symbols)
    return symbols


def _contexts(
    matrix: Codes, symbols: NarrowCodes, number: int, zero: int
) -> tuple[Classes, NarrowCodes, int]:
    """The classes that take the fewest bits, the parities of the states of a matrix's codes
    (all zero, or those of a trellis where that pays), and the parity of level 0."""
    even = np.zeros(matrix.shape, np.uint8)
    if matrix.size >= _MIN_WALK and number > 2:
        odd = walk_parities(matrix, zero)
        bits = classify(symbols, even, number, 1).bits
        if classify(symbols, odd, number, 1).bits < _WORTH * bits:
            # Symbols and codes are both odd or both even, or they never are.
            return classify(symbols, odd, number), odd, int(symbols[0, 0] ^ matrix[0, 0] ^ zero) & 1
    return classify(symbols, even, number), even, 0


def _segments(shape: tuple[int, ...], bits: float) -> int:
    """Segments of rows in each chunk. Chunks are alike, and a power of two for cores to share."""
    most = min(int(bits) // _CHUNK_BITS, shape[0] * shape[1] // _CHUNK)
    number = 1 << max(most.bit_length() - 1, 0)
    return -(-shape[0] // (SEGMENT * number))


def _chunks(coding: Coding) -> list[slice]:
    """The rows of each chunk."""
    rows, step = len(coding.rows), SEGMENT * coding.segments
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def _by_column(coding: Coding) -> Ints:
    """The table of each column's codes, (row classes, parities, n) int64."""
    tables = coding.tables[:, coding.columns].transpose(0, 2, 1)
    return np.ascontiguousarray(tables, np.int64)

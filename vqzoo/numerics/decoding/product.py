"""Products with a matrix that is made of codes of sub-vectors, which never exists as a whole.

x·Wᵀ is a sum over blocks of columns, and a block of a row of W is one of k centroids, or a sum of
some, one for each stage. For each block and stage, the products of x with centroids form a table
(Jégou, Douze, Schmid 2011, section III.B; Wu et al. 2016, arXiv 1512.06473, equation 7), and every
row of W adds the entry of its code: k·d multiplications and m additions in the place of m·d
multiplications. Codes of few bits that share a byte share an entry, too: a table of 256 sums.
"""

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqzoo.numerics.accelerated.products import multiply_residual_on_device
from vqzoo.numerics.arrays import Floats, as_float32
from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.decoding.packed import run_length
from vqzoo.numerics.kernels.lines import code_at
from vqzoo.numerics.kernels.products.octets import (
    OCTET,
    add_octets,
    add_times,
    load_octet,
    spread_octet,
    store_octet,
)
from vqzoo.numerics.threads import run_tasks

_TOGETHER = OCTET  # inputs that share the reading of codes
_ALONE = 1  # inputs that take less time one by one
_MOST = 8 * _TOGETHER  # inputs of a product by tables; more are faster by decoding
_ENTRIES = 256  # of a table of codes of at most 8 bits
_FILLED = 8  # multiplications for a table in place of each row's addition
_SMALL = 1 << 18  # weights that are decoded sooner than multiplied by more than a few inputs
_ADDITIONS = 1 << 21  # a task
_LITTLE_ENDIAN = sys.byteorder == "little"
_GROUP = 4  # blocks whose tables are in the nearest cache together


@dataclass(frozen=True)
class _Sizes:
    """The sizes of a product.

    Attributes:
        blocks: of columns, times stages.
        lines: of m bytes of codes; as many as blocks, unless codes share bytes.
        stages: centroids that a block is the sum of.
        m: rows of the matrix.
        k: centroids of a codebook.
        d: their length.
        width: bits of a code.
        shared: whether all blocks share the codebooks of the stages.
    """

    blocks: int
    lines: int
    stages: int
    m: int
    k: int
    d: int
    width: int
    shared: bool

    @property
    def entries(self) -> int:
        """Of a table: a power of two, so that no code is beyond it."""
        return max(_ENTRIES, 1 << (self.k - 1).bit_length())


def multiply_pq(x: Tensor, codes: Tensor, codebooks: Tensor, width: int = 8) -> Tensor | None:
    """x·Wᵀ of the matrix that `decode_pq` would decode; see `multiply_residual`.

    Args:
        x: (r, s·d), float32 on the CPU.
        codes: (s, m), uint8 or int32, below k; or packed along blocks.
        codebooks: (s, k, d), or (1, k, d) where all blocks share one; float.
        width: bits of a packed code.
    """
    return multiply_residual(x, codes[:, None], codebooks[:, None], width)


def multiply_residual(x: Tensor, codes: Tensor, codebooks: Tensor, width: int = 8) -> Tensor | None:
    """x·Wᵀ of the matrix that `decode_residual` would decode.

    Args:
        x: (r, s·d), float32; everything is on its device.
        codes: (s, stages, m), uint8 or int32, below k; or, if width is not 8, packed along blocks,
            see `decoding.packed`.
        codebooks: (s, stages, k, d), or (1, stages, k, d) where all blocks share them; float.
        width: bits of a code in memory: 1, 2, 4, 8 or 16.

    Returns:
        (r, m), float32, the same with any number of threads; None where decoding W is faster.

    Raises:
        ValueError: shapes or dtypes do not match.
    """
    lines, stages, m = codes.shape
    books, _, k, d = codebooks.shape
    s = x.shape[1] // d if x.dim() == 2 else -1
    fits = x.shape[-1] == s * d and books in (1, s) and stages == codebooks.shape[1]
    if not fits or lines != (s if width >= 8 else run_length(s, width, last=False)):
        raise ValueError(
            f"inputs of shape {tuple(x.shape)} do not fit codes of shape {tuple(codes.shape)} and "
            f"codebooks of shape {tuple(codebooks.shape)}"
        )
    if x.device.type != "cpu":
        return multiply_residual_on_device(x, codes, codebooks, width)
    sizes = _Sizes(s * stages, lines * stages, stages, m, k, d, width, books == 1)
    if not _takes(len(x), sizes):
        return None
    array = codes.contiguous().view(-1).numpy()
    flat = array.view(np.uint16) if array.dtype == np.int16 else array
    centroids = as_float32(codebooks)
    parts = x.split(1 if len(x) <= _ALONE else _TOGETHER)
    rows = [_by_tables(as_float32(part), flat, centroids, sizes) for part in parts]
    return torch.from_numpy(np.concatenate(rows)) if rows else x.new_empty(0, m)


def _takes(inputs: int, sizes: _Sizes) -> bool:
    """Whether tables take less time than decoding."""
    filling = sizes.entries if sizes.width < 8 else sizes.k * sizes.d
    if filling > _FILLED * sizes.m:
        return False
    weights = sizes.m * sizes.blocks * sizes.d
    return inputs <= (_MOST if weights > _SMALL else _TOGETHER)


def _by_tables(x: Floats, codes: NDArray[Any], centroids: Floats, sizes: _Sizes) -> Floats:
    """The products of at most `_TOGETHER` inputs, (r, m)."""
    count, m, k = len(x), sizes.m, sizes.k
    lanes = 1 if count == 1 else _TOGETHER
    # An input is a column, so that a centroid meets all of them at once.
    columns = np.zeros((x.shape[1], lanes), np.float32)
    columns[:, :count] = x.T
    by_words = codes.dtype == np.uint8 and m % 8 == 0 and _LITTLE_ENDIAN
    words = codes[: len(codes) if by_words else 0].view(np.uint64)
    if lanes == 1 and sizes.shared:
        centroids = np.ascontiguousarray(centroids.swapaxes(2, 3))
    width = max(_GROUP, _ADDITIONS // (m * _GROUP) * _GROUP)
    books = (centroids.reshape(-1), sizes.shared, sizes.stages, k, sizes.d)
    book = (*books, sizes.width, sizes.entries)

    def work(start: int) -> Floats:
        sums = np.zeros(m * lanes, np.float32)
        span = (sizes.blocks, sizes.lines, m, start, min(start + width, sizes.lines))
        if lanes == 1:
            _add_one(columns.reshape(-1), codes, words, *book, *span, sums)
        else:
            _add_several(columns.reshape(-1), codes, words, *book, *span, sums)
        return sums

    sums, *rest = run_tasks(work, range(0, sizes.lines, width))
    for more in rest:
        sums += more
    return sums.reshape(m, lanes).T[:count]


@compiled(fastmath=True)
def _fill_table(x, at, d, centroids, book, k, table, to):  # type: ignore[no-untyped-def]
    """table[to:to + k] = the products of x[at:at + d] with transposed centroids, (d, k)."""
    for c in range(k):
        table[np.uint64(to + c)] = np.float32(0)
    for dim in range(d):
        value = x[np.uint64(at + dim)]
        for c in range(k):
            table[np.uint64(to + c)] += value * centroids[np.uint64(book + dim * k + c)]


@compiled(fastmath=True)
def _fill_table_by_rows(x, at, d, centroids, book, k, table, to):  # type: ignore[no-untyped-def]
    """The same with centroids as they are stored, (k, d)."""
    for c in range(k):
        total = np.float32(0)
        for dim in range(d):
            total += x[np.uint64(at + dim)] * centroids[np.uint64(book + c * d + dim)]
        table[np.uint64(to + c)] = total


@compiled(fastmath=True)
def _add_four(words, at, stride, table, sums):  # type: ignore[no-untyped-def]
    """Add to sums the entries of four blocks' codes, which are read eight at a time.

    Codes are words of 64 bits, little-endian, `stride` a block, those of the first at `at`.
    """
    byte, shift = np.uint64(255), np.uint64(8)
    one, two, three = np.uint64(_ENTRIES), np.uint64(2 * _ENTRIES), np.uint64(3 * _ENTRIES)
    for word in range(stride):
        a, b = words[np.uint64(at + word)], words[np.uint64(at + stride + word)]
        c, e = words[np.uint64(at + 2 * stride + word)], words[np.uint64(at + 3 * stride + word)]
        row = np.uint64(8 * word)
        for lane in range(8):
            low = table[a & byte] + table[one + (b & byte)]
            high = table[two + (c & byte)] + table[three + (e & byte)]
            sums[row + np.uint64(lane)] += low + high
            a, b, c, e = a >> shift, b >> shift, c >> shift, e >> shift


@compiled(fastmath=True)
def _fill(x, block, centroids, shared, stages, k, d, table, to):  # type: ignore[no-untyped-def]
    """table[to:to + k] = the products of x with the centroids of a block and stage."""
    at = block // stages * d
    if shared:
        _fill_table(x, at, d, centroids, block % stages * k * d, k, table, to)
    else:
        _fill_table_by_rows(x, at, d, centroids, block * k * d, k, table, to)


@compiled(fastmath=True)
def _fill_sums(  # type: ignore[no-untyped-def]
    x, line, lines, blocks, centroids, shared, stages, k, d, width, part, table, to
):
    """table[to:to + 256] = the sums of products for the codes that share each byte of a line."""
    size, entries = 1, 1 << width
    table[to] = np.float32(0)
    for slot in range(8 // width):
        block = slot * lines + line
        for entry in range(entries):
            part[entry] = np.float32(0)
        if block < blocks:
            _fill(x, block, centroids, shared, stages, k, d, part, 0)
        for entry in range(entries - 1, -1, -1):
            value = part[np.uint64(entry)]
            for i in range(size):
                table[np.uint64(to + entry * size + i)] = table[np.uint64(to + i)] + value
        size *= entries


@compiled(fastmath=True)
def _add_one(  # type: ignore[no-untyped-def]
    x,
    codes,
    words,
    centroids,
    shared,
    stages,
    k,
    d,
    width,
    entries,
    blocks,
    lines,
    m,
    start,
    stop,
    sums,
):
    """Add to sums (m,) the products of an input with lines start to stop - 1 of the codes.

    Args:
        words: the codes, eight bytes a word, or empty where m is no multiple of 8.
        centroids: flat, (k, d) for each block and stage, or (d, k) for each stage if shared.
    """
    table, part = np.zeros(_GROUP * entries, np.float32), np.zeros(_ENTRIES, np.float32)
    line, mask = start, entries - 1
    while line < stop:
        together = min(_GROUP, stop - line)
        for place in range(together):
            to = place * entries
            if width < 8:
                _fill_sums(
                    x, line + place, lines, blocks, centroids, shared, stages, k, d, width, part,
                    table, to,
                )  # fmt: skip
            else:
                _fill(x, line + place, centroids, shared, stages, k, d, table, to)
        if together == _GROUP and words.shape[0] > 0:
            _add_four(words, line * m // 8, m // 8, table, sums)
        else:
            for place in range(together):
                at, to = (line + place) * m, place * entries
                for row in range(m):
                    entry = np.uint64(to + (code_at(codes, at + row) & mask))
                    sums[np.uint64(row)] += table[entry]
        line += together


@compiled(fastmath=True)
def _fill_octets(x, block, centroids, shared, stages, k, d, table, to):  # type: ignore[no-untyped-def]
    """`_fill` for `_TOGETHER` inputs: entries are octets, centroids (k, d) always."""
    at = block // stages * d
    source = (block % stages if shared else block) * k * d
    for c in range(k):
        total = spread_octet(np.float32(0))
        for dim in range(d):
            value = centroids[np.uint64(source + dim)]
            total = add_times(total, value, load_octet(x, (at + dim) * OCTET))
        store_octet(total, table, to + c * OCTET)
        source += d


@compiled(fastmath=True)
def _fill_octet_sums(  # type: ignore[no-untyped-def]
    x, line, lines, blocks, centroids, shared, stages, k, d, width, part, table, to
):
    """`_fill_sums` for `_TOGETHER` inputs."""
    size, entries, none = 1, 1 << width, spread_octet(np.float32(0))
    store_octet(none, table, to)
    for slot in range(8 // width):
        block = slot * lines + line
        for entry in range(entries):
            store_octet(none, part, entry * OCTET)
        if block < blocks:
            _fill_octets(x, block, centroids, shared, stages, k, d, part, 0)
        for entry in range(entries - 1, -1, -1):
            value = load_octet(part, entry * OCTET)
            for i in range(size):
                total = add_octets(load_octet(table, to + i * OCTET), value)
                store_octet(total, table, to + (entry * size + i) * OCTET)
        size *= entries


@compiled(fastmath=True)
def _add_four_octets(words, at, stride, table, sums):  # type: ignore[no-untyped-def]
    """`_add_four` for `_TOGETHER` inputs."""
    byte, shift, scale = np.uint64(255), np.uint64(8), np.uint64(OCTET)
    one, two = np.uint64(_ENTRIES * OCTET), np.uint64(2 * _ENTRIES * OCTET)
    three, to = np.uint64(3 * _ENTRIES * OCTET), 0
    for word in range(stride):
        a, b = words[np.uint64(at + word)], words[np.uint64(at + stride + word)]
        c, e = words[np.uint64(at + 2 * stride + word)], words[np.uint64(at + 3 * stride + word)]
        for _ in range(8):
            low = load_octet(table, (a & byte) * scale)
            low = add_octets(low, load_octet(table, one + (b & byte) * scale))
            high = load_octet(table, two + (c & byte) * scale)
            high = add_octets(high, load_octet(table, three + (e & byte) * scale))
            total = add_octets(load_octet(sums, to), add_octets(low, high))
            store_octet(total, sums, to)
            a, b, c, e = a >> shift, b >> shift, c >> shift, e >> shift
            to += OCTET


@compiled(fastmath=True)
def _add_several(  # type: ignore[no-untyped-def]
    x,
    codes,
    words,
    centroids,
    shared,
    stages,
    k,
    d,
    width,
    entries,
    blocks,
    lines,
    m,
    start,
    stop,
    sums,
):
    """Add to sums (m, `_TOGETHER`) the products of as many inputs with lines of the codes."""
    table = np.zeros(_GROUP * entries * OCTET, np.float32)
    part = np.zeros(_ENTRIES * OCTET, np.float32)
    line, mask = start, entries - 1
    while line < stop:
        together = min(_GROUP, stop - line)
        for place in range(together):
            to = place * entries * OCTET
            if width < 8:
                _fill_octet_sums(
                    x, line + place, lines, blocks, centroids, shared, stages, k, d, width, part,
                    table, to,
                )  # fmt: skip
            else:
                _fill_octets(x, line + place, centroids, shared, stages, k, d, table, to)
        if together == _GROUP and words.shape[0] > 0:
            _add_four_octets(words, line * m // 8, m // 8, table, sums)
        else:
            for place in range(together):
                at, to = (line + place) * m, place * entries
                for row in range(m):
                    entry = load_octet(table, (to + (code_at(codes, at + row) & mask)) * OCTET)
                    total = add_octets(load_octet(sums, row * OCTET), entry)
                    store_octet(total, sums, row * OCTET)
        line += together

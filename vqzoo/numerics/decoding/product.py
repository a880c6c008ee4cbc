"""Products with a matrix that is made of codes, which never exists as a whole.

x·Wᵀ is a sum over blocks of columns, and a block of a row of W is one of k centroids. For each
block, the products of x with its centroids form a table (Jégou, Douze, Schmid 2011, section III.B;
Wu et al. 2016, arXiv 1512.06473, equation 7), and every row of W adds the entry of its code: k·d
multiplications and m additions in the place of m·d multiplications. Larger batches decode some rows
of W at a time into the cache.
"""

import sys

import numpy as np
import torch
from torch import Tensor

from vqzoo.numerics.arrays import Floats, as_float32
from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.decoding.decode import decode_pq
from vqzoo.numerics.kernels.lines import LINE, add_lines, code_at, load_line, store_line
from vqzoo.numerics.threads import run_tasks

_TOGETHER = LINE  # inputs that share the reading of codes
_MOST = 32  # inputs of a product by tables; more are faster by decoding
_ENTRIES = 256  # of a table: no code of 8 bits is beyond it
_ADDITIONS = 1 << 21  # a task
_TILE = 1 << 20  # values that are decoded at a time
_LITTLE_ENDIAN = sys.byteorder == "little"
_GROUP = 4  # blocks whose tables are in the nearest cache together


def multiply_pq(x: Tensor, codes: Tensor, codebooks: Tensor) -> Tensor:
    """x·Wᵀ of the matrix that `decode_pq` would decode.

    Args:
        x: (r, s·d), float32 on the CPU.
        codes: (s, m), uint8 or int32, below k.
        codebooks: (s, k, d), or (1, k, d) where all blocks share one; float.

    Returns:
        (r, m), float32; the same with any number of threads.

    Raises:
        ValueError: shapes or dtypes do not match.
    """
    s, m = codes.shape
    books, k, d = codebooks.shape
    if x.dim() != 2 or x.shape[1] != s * d or books not in (1, s):
        raise ValueError(
            f"inputs of shape {tuple(x.shape)} do not fit codes of shape {tuple(codes.shape)} and "
            f"codebooks of shape {tuple(codebooks.shape)}"
        )
    if codes.dtype != torch.uint8 or len(x) > _MOST or 2 * k > m:
        return _by_tiles(x, codes, codebooks)
    flat, centroids = codes.contiguous().view(-1).numpy(), as_float32(codebooks).reshape(-1)
    rows = [
        _by_tables(as_float32(part), flat, centroids, (s, m, k, d), books == 1)
        for part in x.split(_TOGETHER)
    ]
    return torch.from_numpy(np.concatenate(rows))


def _by_tables(
    x: Floats,
    codes: "np.ndarray[tuple[int], np.dtype[np.uint8]]",
    centroids: Floats,
    sizes: tuple[int, int, int, int],
    shared: bool,
) -> Floats:
    """The products of at most `_TOGETHER` inputs, (r, m)."""
    s, m, k, d = sizes
    inputs = x.reshape(-1, s * d)
    count = len(inputs)
    lanes = 1 if count == 1 else _TOGETHER
    # An input is a column, so that a centroid meets all of them at once.
    columns = np.zeros((s * d, lanes), np.float32)
    columns[:, :count] = inputs.T
    words = codes[: len(codes) if m % 8 == 0 and _LITTLE_ENDIAN else 0].view(np.uint64)
    if lanes == 1 and shared:
        centroids = np.ascontiguousarray(centroids.reshape(k, d).T).reshape(-1)
    width = max(_GROUP, _ADDITIONS // (m * _GROUP) * _GROUP)

    def work(start: int) -> Floats:
        sums = np.zeros(m * lanes, np.float32)
        stop = min(start + width, s)
        inner = (centroids, shared, m, k, d, start, stop, sums)
        if lanes == 1:
            _add_one(columns.reshape(-1), codes, words, *inner)
        else:
            _add_several(columns.reshape(-1), codes, *inner)
        return sums

    sums, *rest = run_tasks(work, range(0, s, width))
    for more in rest:
        sums += more
    return sums.reshape(m, lanes).T[:count]


def _by_tiles(x: Tensor, codes: Tensor, codebooks: Tensor) -> Tensor:
    """Decode some rows of the matrix at a time into the same memory, and multiply by them."""
    m = codes.shape[1]
    height = max(1, _TILE // x.shape[1])
    out, tile = x.new_empty(len(x), m), x.new_empty(min(height, m), x.shape[1])
    for start in range(0, m, height):
        part = codes[:, start : start + height]
        rows = decode_pq(part, codebooks, tile[: part.shape[1]])
        out[:, start : start + height] = x @ rows.T
    return out


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
def _add_one(  # type: ignore[no-untyped-def]
    x, codes, words, centroids, shared, m, k, d, start, stop, sums
):
    """Add to sums (m,) the products of an input with blocks start to stop - 1.

    Args:
        words: the codes, eight a word, or empty where m is no multiple of 8.
        centroids: flat, (k, d) for each block, or (d, k) if shared.
    """
    table = np.zeros(_GROUP * _ENTRIES, np.float32)
    block = start
    while block < stop:
        together = min(_GROUP, stop - block)
        for place in range(together):
            at, to = (block + place) * d, place * _ENTRIES
            if shared:
                _fill_table(x, at, d, centroids, 0, k, table, to)
            else:
                _fill_table_by_rows(x, at, d, centroids, at * k, k, table, to)
        if together == _GROUP and words.shape[0] > 0:
            _add_four(words, block * m // 8, m // 8, table, sums)
        else:
            for place in range(together):
                at, to = (block + place) * m, place * _ENTRIES
                for row in range(m):
                    entry = np.uint64(to + code_at(codes, at + row))
                    sums[np.uint64(row)] += table[entry]
        block += together


@compiled(fastmath=True)
def _add_several(  # type: ignore[no-untyped-def]
    x, codes, centroids, shared, m, k, d, start, stop, sums
):
    """Add to sums (m, `_TOGETHER`) the products of as many inputs with blocks start to stop - 1."""
    table = np.zeros(2 * _ENTRIES * LINE, np.float32)
    second = _ENTRIES * LINE
    block = start
    while block < stop:
        together = min(2, stop - block)
        for place in range(together):
            book = 0 if shared else (block + place) * k * d
            for c in range(k):
                to = place * second + c * LINE
                for lane in range(LINE):
                    table[to + lane] = np.float32(0)
                for dim in range(d):
                    value = centroids[book + c * d + dim]
                    at = ((block + place) * d + dim) * LINE
                    for lane in range(LINE):
                        table[to + lane] += value * x[at + lane]
        a = block * m
        if together == 2:
            for row in range(m):
                low = load_line(table, code_at(codes, a + row) * LINE)
                high = load_line(table, second + code_at(codes, a + m + row) * LINE)
                total = add_lines(load_line(sums, row * LINE), add_lines(low, high))
                store_line(total, sums, row * LINE)
        else:
            for row in range(m):
                only = load_line(table, code_at(codes, a + row) * LINE)
                store_line(add_lines(load_line(sums, row * LINE), only), sums, row * LINE)
        block += together

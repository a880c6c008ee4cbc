"""Sums of tables' entries: the kernels of `decoding.product`.

`book` is (centroids, shared, stages, k, d, width, entries): the centroids flat, the next five as in
its `_Sizes`, and the entries of a table. `span` is (blocks, lines, m, start, stop): the first three
as there, and the lines of codes that a call works on.
"""

import numpy as np

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.codegen import prefetch
from vqzoo.numerics.kernels.lines import LINE, add_lines, code_at, load_line, store_line
from vqzoo.numerics.kernels.products.aligned import aligned_zeros
from vqzoo.numerics.kernels.products.byte_tables import (
    CODES,
    first_quarter,
    fourth_quarter,
    in_quarters,
    load_bytes,
    look_up_bytes,
    second_quarter,
    third_quarter,
)
from vqzoo.numerics.kernels.products.octets import (
    OCTET,
    add_octets,
    add_times,
    load_octet,
    spread_octet,
    store_octet,
)
from vqzoo.numerics.kernels.products.quads import QUAD, multiply_quads, spread_quad
from vqzoo.numerics.kernels.products.row_products import AHEAD

ENTRIES = 256  # of a table of codes of at most 8 bits
GROUP = 4  # lines whose tables are in the nearest cache together


@compiled(fastmath=True)
def add_one(x, codes, words, book, span, sums):  # type: ignore[no-untyped-def]
    """Add to sums (m,) the products of an input with lines of the codes.

    Args:
        x: (n,).
        codes: flat, (lines, m).
        words: the codes, eight bytes a word, or empty where m is no multiple of 8.
        book, span: centroids are (k, d) for each block and stage, or (d, k) for each stage if
            shared.
    """
    entries, (_, _, m, start, stop) = book[6], span
    table, part = aligned_zeros(GROUP * entries), aligned_zeros(ENTRIES)
    for line in range(start, stop, GROUP):
        together = min(GROUP, stop - line)
        for place in range(together):
            _fill_line(x, line + place, book, span, part, table, place * entries)
        if together == GROUP and words.shape[0] > 0:
            _add_four(words, line * m // 8, m // 8, table, sums)
        else:
            for place in range(together):
                _add_entries(codes, (line + place) * m, table, place * entries, entries, m, sums)


@compiled(fastmath=True)
def add_one_by_bytes(x, codes, book, span, sums):  # type: ignore[no-untyped-def]
    """`add_one` for codes of at most 8 bits, where the processor looks up bytes in registers."""
    _, _, m, start, stop = span
    centroids, shared, _, k, d, width, _ = book
    size = 0 if shared or width < 8 else k * d
    whole = m // CODES * CODES
    table, part = aligned_zeros(ENTRIES), aligned_zeros(ENTRIES)
    planes = aligned_zeros(ENTRIES).view(np.uint8)
    for line in range(start, stop):
        _fill_line(x, line, book, span, part, table, 0)
        bits, at = table.view(np.uint32), line * m
        for entry in range(ENTRIES):
            for plane in range(4):
                byte = bits[np.uint64(entry)] >> np.uint32(8 * plane)
                planes[np.uint64(plane * ENTRIES + entry)] = np.uint8(byte & np.uint32(255))
        for row in range(0, whole, CODES):
            prefetch(codes, at + row + AHEAD)
            prefetch(centroids, (line + 1) * size + row // 4)  # of the next block, 16 at a time
            quarters = in_quarters(load_bytes(codes, at + row))
            a = look_up_bytes(planes, 0, quarters)
            b = look_up_bytes(planes, ENTRIES, quarters)
            c = look_up_bytes(planes, 2 * ENTRIES, quarters)
            d = look_up_bytes(planes, 3 * ENTRIES, quarters)
            _add_line(first_quarter(a, b, c, d), sums, row)
            _add_line(second_quarter(a, b, c, d), sums, row + LINE)
            _add_line(third_quarter(a, b, c, d), sums, row + 2 * LINE)
            _add_line(fourth_quarter(a, b, c, d), sums, row + 3 * LINE)
        for row in range(whole, m):
            sums[np.uint64(row)] += table[np.uint64(codes[np.uint64(at + row)])]


@compiled(fastmath=True)
def _add_line(values, sums, row):  # type: ignore[no-untyped-def]
    store_line(add_lines(load_line(sums, row), values), sums, row)


@compiled(fastmath=True)
def _fill_line(x, line, book, span, part, table, to):  # type: ignore[no-untyped-def]
    """table[to:to + entries] = the table of a line of codes."""
    centroids, shared, stages, k, d, width, _ = book
    if width < 8:
        blocks, lines = span[0], span[1]
        _fill_sums(x, line, lines, blocks, centroids, shared, stages, k, d, width, part, table, to)
    else:
        _fill(x, line, centroids, shared, stages, k, d, table, to)


@compiled(fastmath=True)
def _add_entries(codes, at, table, to, entries, m, sums):  # type: ignore[no-untyped-def]
    """Add to sums the entries of the codes from `at` on."""
    for row in range(m):
        entry = np.uint64(to + (code_at(codes, at + row) & (entries - 1)))
        sums[np.uint64(row)] += table[entry]


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
    whole = k // LINE * LINE if d == QUAD else 0
    if whole:
        quad = spread_quad(x, at)
        for c in range(0, whole, LINE):
            store_line(multiply_quads(centroids, book + c * QUAD, quad), table, to + c)
    for c in range(whole, k):
        total = np.float32(0)
        for dim in range(d):
            total += x[np.uint64(at + dim)] * centroids[np.uint64(book + c * d + dim)]
        table[np.uint64(to + c)] = total


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
def _add_four(words, at, stride, table, sums):  # type: ignore[no-untyped-def]
    """Add to sums the entries of four blocks' codes, which are read eight at a time.

    Codes are words of 64 bits, little-endian, `stride` a block, those of the first at `at`.
    """
    byte, shift = np.uint64(255), np.uint64(8)
    one, two, three = np.uint64(ENTRIES), np.uint64(2 * ENTRIES), np.uint64(3 * ENTRIES)
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
def add_octets_of(x, codes, words, book, span, sums):  # type: ignore[no-untyped-def]
    """`add_one` of eight inputs: x (n, 8), sums (m, 8), centroids (k, d) always."""
    entries, (_, _, m, start, stop) = book[6], span
    table, part = aligned_zeros(GROUP * entries * OCTET), aligned_zeros(ENTRIES * OCTET)
    for line in range(start, stop, GROUP):
        together = min(GROUP, stop - line)
        for place in range(together):
            _fill_octet_line(x, line + place, book, span, part, table, place * entries * OCTET)
        if together == GROUP and words.shape[0] > 0:
            _add_four_octets(words, line * m // 8, m // 8, table, sums)
        else:
            for place in range(together):
                at, to = (line + place) * m, place * entries
                for row in range(m):
                    code = code_at(codes, at + row) & (entries - 1)
                    entry = load_octet(table, (to + code) * OCTET)
                    total = add_octets(load_octet(sums, row * OCTET), entry)
                    store_octet(total, sums, row * OCTET)


@compiled(fastmath=True)
def _fill_octet_line(x, line, book, span, part, table, to):  # type: ignore[no-untyped-def]
    """`_fill_line` for eight inputs: entries are octets."""
    centroids, shared, stages, k, d, width, _ = book
    if width < 8:
        blocks, lines = span[0], span[1]
        _fill_octet_sums(
            x, line, lines, blocks, centroids, shared, stages, k, d, width, part, table, to
        )
    else:
        _fill_octets(x, line, centroids, shared, stages, k, d, table, to)


@compiled(fastmath=True)
def _fill_octets(x, block, centroids, shared, stages, k, d, table, to):  # type: ignore[no-untyped-def]
    """`_fill` for eight inputs: entries are octets, centroids (k, d) always."""
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
    """`_fill_sums` for eight inputs."""
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
    """`_add_four` for eight inputs."""
    byte, shift, scale = np.uint64(255), np.uint64(8), np.uint64(OCTET)
    one, two = np.uint64(ENTRIES * OCTET), np.uint64(2 * ENTRIES * OCTET)
    three, to = np.uint64(3 * ENTRIES * OCTET), 0
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

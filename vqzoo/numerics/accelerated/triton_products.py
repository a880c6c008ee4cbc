"""Products of a few inputs with codes as Triton kernels: no weight is ever written.

A program takes some rows of the matrix. Each code is read once for all inputs, and its value, or
its centroid, is looked up in the nearest cache, where the tables stay.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BYTES = 128  # of a row, at a time
ROWS, LINES = 64, 8  # of codes of blocks, at a time
_SUMS = 64  # rows times inputs of a program that multiplies by scalars
_PROGRAMS = 512  # that keep a device busy


@triton.jit
def multiply_scalars_kernel(  # type: ignore[no-untyped-def]
    packed,
    table,
    x,
    out,
    m,
    n,
    run,
    zero,
    WIDTH: tl.constexpr,
    GRID: tl.constexpr,
    INPUTS: tl.constexpr,
    ROWS: tl.constexpr,
    BYTES: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    one = tl.arange(0, INPUTS)
    total = tl.zeros((ROWS, INPUTS), tl.float32)
    for first in range(0, run, BYTES):
        place = first + tl.arange(0, BYTES)
        inside = (row < m)[:, None] & (place < run)[None, :]
        at = row.to(tl.int64)[:, None] * run + place[None, :]
        codes = tl.load(packed + at, mask=inside, other=0).to(tl.int32)
        for slot in tl.static_range(8 // WIDTH):
            code = (codes >> (slot * WIDTH)) & ((1 << WIDTH) - 1)
            value = code.to(tl.float32) - zero if GRID else tl.load(table + code).to(tl.float32)
            column = slot * run + place
            within = (place < run) & (column < n)
            inputs = tl.load(
                x + one[:, None] * n + column[None, :], mask=within[None, :], other=0.0
            )
            total += tl.sum(value[:, None, :] * inputs[None, :, :], axis=2)
    tl.store(out + one[None, :] * m + row[:, None], total, mask=(row < m)[:, None])


@triton.jit
def multiply_blocks_kernel(  # type: ignore[no-untyped-def]
    codes,
    codebooks,
    x,
    out,
    m,
    lines,
    blocks,
    depth,
    k,
    book_stride,
    D: tl.constexpr,
    STAGES: tl.constexpr,
    WIDTH: tl.constexpr,
    INPUTS: tl.constexpr,
    ROWS: tl.constexpr,
    LINES: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    one = tl.arange(0, INPUTS)
    start = tl.program_id(1) * depth
    stop = tl.minimum(start + depth, lines)
    total = tl.zeros((INPUTS, ROWS), tl.float32)
    for first in range(start, stop, LINES):
        line = first + tl.arange(0, LINES)
        inside = (line < stop)[:, None] & (row < m)[None, :]
        for stage in tl.static_range(STAGES):
            at = (line * STAGES + stage).to(tl.int64)[:, None] * m + row[None, :]
            held = tl.load(codes + at, mask=inside, other=0).to(tl.int32)
            for slot in tl.static_range(8 // WIDTH if WIDTH < 8 else 1):
                code = (held >> (slot * WIDTH)) & ((1 << WIDTH) - 1)
                block = slot * lines + line
                within = (line < stop) & (block < blocks)
                book = block.to(tl.int64) * book_stride + stage * k * D
                for dim in tl.static_range(D):
                    place = book[:, None] + code * D + dim
                    value = tl.load(codebooks + place, mask=within[:, None], other=0.0)
                    column = one[:, None] * (blocks * D) + block[None, :] * D + dim
                    inputs = tl.load(x + column, mask=within[None, :], other=0.0)
                    total += tl.sum(inputs[:, :, None] * value.to(tl.float32)[None, :, :], axis=1)
    to = (tl.program_id(1) * INPUTS + one).to(tl.int64)[:, None] * m + row[None, :]
    tl.store(out + to, total, mask=(row < m)[None, :])


def multiply_scalars(
    x: Tensor, codes: Tensor, width: int, table: Tensor, zero: int | None = None
) -> Tensor:
    """`decoding.scalar_product.multiply_scalars`."""
    m, run = codes.shape
    inputs = _padded(x)
    rows = max(1, _SUMS // len(inputs))
    out = inputs.new_empty(len(inputs), m)
    with torch.cuda.device_of(x):
        multiply_scalars_kernel[(triton.cdiv(m, rows),)](
            codes.contiguous(),
            table.contiguous(),
            inputs,
            out,
            m,
            x.shape[1],
            run,
            float(zero or 0),
            WIDTH=width,
            GRID=zero is not None,
            INPUTS=len(inputs),
            ROWS=rows,
            BYTES=BYTES,
        )
    return out[: len(x)]


def multiply_residual(x: Tensor, codes: Tensor, codebooks: Tensor, width: int) -> Tensor:
    """`decoding.product.multiply_residual`."""
    lines, stages, m = codes.shape
    books, _, k, d = codebooks.shape
    inputs = _padded(x)
    columns = triton.cdiv(m, ROWS)
    parts = max(1, min(triton.cdiv(lines, LINES), _PROGRAMS // columns))
    depth = triton.cdiv(triton.cdiv(lines, parts), LINES) * LINES
    parts = triton.cdiv(lines, depth)
    out = inputs.new_empty(parts, len(inputs), m)
    with torch.cuda.device_of(x):
        multiply_blocks_kernel[(columns, parts)](
            codes.contiguous(),
            codebooks.contiguous(),
            inputs,
            out,
            m,
            lines,
            x.shape[1] // d,
            depth,
            k,
            stages * k * d if books > 1 else 0,
            D=d,
            STAGES=stages,
            WIDTH=min(width, 16),
            INPUTS=len(inputs),
            ROWS=ROWS,
            LINES=LINES,
        )
    return out.sum(0)[: len(x)]


def _padded(x: Tensor) -> Tensor:
    """Inputs, contiguous float32, and zeros up to a power of two."""
    padded = x.new_zeros(triton.next_power_of_2(len(x)), x.shape[1], dtype=torch.float32)
    padded[: len(x)] = x
    return padded

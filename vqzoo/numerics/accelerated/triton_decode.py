"""Decoding as a Triton kernel: each value is written once, and no indices but codes are read."""

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, COLUMNS = 32, 128  # of the weight, a program


@triton.jit
def decode_blocks_kernel(  # type: ignore[no-untyped-def]
    codes,
    codebooks,
    out,
    m,
    columns,
    row_stride,
    k,
    book_stride,
    D: tl.constexpr,
    STAGES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    tiles = tl.cdiv(columns, COLUMNS)
    row = (tl.program_id(0) // tiles).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = (tl.program_id(0) % tiles) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < m)[:, None] & (column < columns)[None, :]
    block = (column // D).to(tl.int64)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for stage in range(STAGES):
        at = (block * STAGES + stage)[None, :] * m + row[:, None]
        code = tl.load(codes + at, mask=inside, other=0).to(tl.int64)
        source = (block * book_stride + stage * k * D + column % D)[None, :] + code * D
        total += tl.load(codebooks + source, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row[:, None] * row_stride + column[None, :], total, mask=inside)


def decode_blocks(codes: Tensor, codebooks: Tensor, out: Tensor) -> Tensor:
    """`torch_decode.decode_blocks`."""
    s, stages, m = codes.shape
    books, _, k, d = codebooks.shape
    if out.numel() == 0:
        return out
    with torch.cuda.device_of(out):
        decode_blocks_kernel[(triton.cdiv(m, ROWS) * triton.cdiv(s * d, COLUMNS),)](
            codes.contiguous(),
            codebooks.contiguous(),
            out,
            m,
            s * d,
            out.stride(0),
            k,
            stages * k * d if books > 1 else 0,
            D=d,
            STAGES=stages,
            ROWS=ROWS,
            COLUMNS=COLUMNS,
            enable_fp_fusion=True,
        )
    return out

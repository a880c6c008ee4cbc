"""Differentiable decoding: the gradient of a centroid is the sum over its codes.

Han, Mao, Dally 2016 (arXiv 1510.00149, equation 3) train the shared values of a network this way.
On the CPU both directions are kernels; on other devices, and where torch traces the network,
torch's own lookup does the same.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from vqzoo.numerics.arrays import narrow_and_wide
from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.decoding.decode import decode_residual, decode_scalar
from vqzoo.numerics.threads import run_tasks
from vqzoo.numerics.tracing import is_traced

_LINE = 512  # adjacent values of a row that a task reads
_ROWS = 8
_VALUES = 1 << 20  # values a task
_SUMS = 1 << 16  # sums of a task whose blocks have a codebook each


def look_up(codes: Tensor, codebooks: Tensor) -> Tensor:
    """The matrix whose columns b·d to (b + 1)·d are the sum over t of codebooks[b, t][codes[b, t]].

    Args:
        codes: (s, stages, m), integers below k.
        codebooks: (s, stages, k, d), or (1, stages, k, d) where all blocks share them; float.

    Returns:
        (m, s·d), differentiable in `codebooks`.

    Raises:
        ValueError: the shapes do not match.
    """
    s, stages, m = codes.shape
    books, k, d = codebooks.shape[0], *codebooks.shape[2:]
    if books not in (1, s) or stages != codebooks.shape[1]:
        raise ValueError(
            f"codes of shape {tuple(codes.shape)} do not fit codebooks of {tuple(codebooks.shape)}"
        )
    if _kernels_take(codes, codebooks):
        return _BlockLookup.apply(_as_uint8_or_int32(codes), codebooks)
    if books * stages == 1:
        rows = F.embedding(codes[:, 0].int(), codebooks[0, 0])
        return rows.transpose(0, 1).reshape(m, s * d)
    first = torch.arange(books, device=codes.device) * (stages * k)
    starts = first[:, None] + torch.arange(stages, device=codes.device) * k
    rows = F.embedding(codes.long() + starts[:, :, None], codebooks.reshape(-1, d))
    return rows.sum(1).transpose(0, 1).reshape(m, s * d)


def look_up_scalar(codes: Tensor, centroids: Tensor) -> Tensor:
    """centroids[codes], of the codes' shape, differentiable in `centroids` (k,)."""
    if _kernels_take(codes, centroids):
        return _ScalarLookup.apply(_as_uint8_or_int32(codes), centroids)
    return F.embedding(codes.int(), centroids[:, None]).squeeze(-1)


def _kernels_take(codes: Tensor, codebooks: Tensor) -> bool:
    float32_on_cpu = codes.device.type == "cpu" and codebooks.dtype == torch.float32
    return float32_on_cpu and not is_traced()


class _BlockLookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, codes: Tensor, codebooks: Tensor) -> Tensor:
        ctx.codes, ctx.shape = codes, codebooks.shape
        s, _, m = codes.shape
        return decode_residual(codes, codebooks, codebooks.new_empty(m, s * codebooks.shape[3]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, sum_by_code(ctx.codes, gradient, tuple(ctx.shape))


class _ScalarLookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, codes: Tensor, centroids: Tensor) -> Tensor:
        ctx.codes, ctx.shape = codes, centroids.shape
        return decode_scalar(codes, centroids, centroids.new_empty(codes.shape))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        codes = ctx.codes.reshape(1, 1, -1)
        sums = sum_by_code(codes, gradient.reshape(-1, 1), (1, 1, ctx.shape[0], 1))
        return None, sums.view(-1)


def sum_by_code(codes: Tensor, values: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    """The sum of the sub-vectors at which each code occurs.

    Args:
        codes: (s, stages, m), uint8 or int32, below k.
        values: (m, s·d), float32.
        shape: (s or 1, stages, k, d), of the codebooks.

    Returns:
        float32 of that shape, summed in float64; the same with any number of threads.
    """
    s, stages, m = codes.shape
    books, _, k, d = shape
    narrow, wide = narrow_and_wide(codes.contiguous().view(-1))
    flat = values.contiguous().view(-1).numpy()
    width = min(s, max(1, _LINE // d))
    if books > 1:
        width = max(1, min(width, _SUMS // (stages * k * d)))
    height = max(_ROWS, max(_VALUES, 4 * k * stages * d) // (width * d))
    spans = [
        ((b, min(b + width, s)), (i, min(i + height, m)))
        for b in range(0, s, width)
        for i in range(0, m, height)
    ]

    def work(span: tuple[tuple[int, int], tuple[int, int]]) -> np.ndarray[Any, Any]:
        sums = np.zeros((span[0][1] - span[0][0] if books > 1 else 1, stages, k, d))
        _add_by_code(
            narrow, wide, m, stages, k, d, books == 1, *span, flat, s * d, sums.reshape(-1)
        )
        return sums

    total = np.zeros(shape)
    for (blocks, _), sums in zip(spans, run_tasks(work, spans), strict=True):
        place = total if books == 1 else total[blocks[0] : blocks[1]]
        place += sums
    return torch.from_numpy(total).float()


@compiled()
def _add_by_code(  # type: ignore[no-untyped-def]
    narrow, wide, m, stages, k, d, shared, blocks, rows, values, row_stride, sums
):
    """Add to sums: flat, (blocks or 1, stages, k, d); codes are those of `decode_kernels`."""
    small = narrow.shape[0] > 0
    for top in range(rows[0], rows[1], _ROWS):
        bottom = min(top + _ROWS, rows[1])
        for block in range(blocks[0], blocks[1]):
            for stage in range(stages):
                at = (block * stages + stage) * m
                book = (stage if shared else (block - blocks[0]) * stages + stage) * k * d
                for row in range(top, bottom):
                    code = np.int64(narrow[at + row]) if small else np.int64(wide[at + row])
                    source, to = row * row_stride + block * d, book + code * d
                    for dim in range(d):
                        sums[to + dim] += values[source + dim]


def _as_uint8_or_int32(codes: Tensor) -> Tensor:
    return codes if codes.dtype in (torch.uint8, torch.int32) else codes.int()

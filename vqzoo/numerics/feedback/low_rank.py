"""Products with H where it has a low rank: a Linear layer behind few images sees few vectors."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vqzoo.numerics.feedback.layer import times_hessian

_LEFT_OUT = 1e-5  # of the trace of H, far below what damping adds
_SHARE = 8  # the rank is at most this part of the columns: a product is then a quarter of the work
_NARROW = 2048  # columns below which a product with H is cheap
_AT_ONCE = 64  # columns of the factor


def products_with(hessian: Sequence[Tensor]) -> tuple[Callable[[Tensor], Tensor], int]:
    """What multiplies matrices by H, and what it takes.

    Args:
        hessian: H as blocks of consecutive columns, (groups, b, b) float32 each. One group of at
            least 2048 columns is multiplied by in factors where its rank allows; they leave out at
            most 1e-5 of the trace, and nothing but a positive semidefinite part.

    Returns:
        M -> M H, (m, n) float32, and operations for a row of M.
    """
    blocks: list[tuple[Tensor, ...]] = [(block,) for block in hessian]
    if len(hessian[0]) == 1:
        for place, block in enumerate(hessian):
            n = block.shape[1]
            if n >= _NARROW and (factor := thin_factor(block[0], n // _SHARE)) is not None:
                blocks[place] = (factor[None], factor.mT[None].contiguous())
    operations = 2 * sum(part[0].numel() for factors in blocks for part in factors)
    return lambda matrix: _product(matrix, blocks), operations


def _product(matrix: Tensor, blocks: Sequence[tuple[Tensor, ...]]) -> Tensor:
    """M H, each block of H a product of factors."""
    parts: list[Tensor] = []
    start = 0
    for factors in blocks:
        part = matrix[:, start : start + factors[0].shape[1]]
        for factor in factors:
            part = times_hessian(part, [factor])
        start += factors[0].shape[1]
        parts.append(part)
    return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


def thin_factor(block: Tensor, rank: int) -> Tensor | None:
    """F of few columns with F Fᵀ = H, but for 1e-5 of the trace.

    Partial Cholesky factorization with pivots, 64 at a time: those with the largest diagonal of
    what is left (Williams and Seeger 2000, "Using the Nyström method to speed up kernel machines";
    Harbrecht, Peters, Schneider 2012, "On the low-rank approximation by the pivoted Cholesky
    decomposition"). It takes n·rank² operations.

    Args:
        block: H, (n, n) float32, symmetric and positive semidefinite.
        rank: columns that F may have.

    Returns:
        F, (n, r) float32; None if it takes more columns.
    """
    left = block.diagonal().double()
    enough = _LEFT_OUT * float(left.sum())
    factor = block.new_empty(len(block), rank, dtype=torch.float64)
    width = 0
    while float(left.sum()) > enough:
        pivots = left.topk(min(_AT_ONCE, len(left))).indices
        columns = block[:, pivots].double() - factor[:, :width] @ factor[pivots, :width].mT
        values, vectors = torch.linalg.eigh(columns[pivots])
        clear = values > 1e-6 * values[-1]
        new = columns @ (vectors[:, clear] * values[clear].rsqrt())
        if width + new.shape[1] > rank or not bool(clear.any()):
            return None
        factor[:, width : width + new.shape[1]] = new
        width += new.shape[1]
        left = (left - new.square().sum(1)).clamp(min=0)
    return factor[:, :width].float()

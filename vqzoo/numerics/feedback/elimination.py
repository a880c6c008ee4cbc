"""The order in which columns are quantized, and what each error does to the columns that follow.

Rows w of a matrix are quantized to q at the cost (w - q) H (w - q)ᵀ. Once some columns are fixed,
the others can still make up for their errors. With the columns in an order of elimination and U
the upper triangular factor of H⁻¹ = UᵀU in that order,

* an error e_j of column j costs D_j e_j², D_j = 1/U_jj², once the columns behind it have adapted:
  they change by -(e_j / U_jj) U_{j, j+1:} (Frantar et al. 2022, arXiv 2210.17323, section 3.3);
* a block b of columns has the metric D_b = (U_bbᵀ U_bb)⁻¹, which is the inverse of block b of
  H_R⁻¹ for the columns R that are left, and its errors E_b change the columns F behind it by
  -E_b U_bb⁻¹ U_bF (van Baalen et al. 2024, arXiv 2402.15319, section 3.2).

The factor of any trailing set of columns is the trailing block of U: one factorization serves all.

At low rates, bits favour small weights. Where they are about ρ/2 ‖q‖² in units of the loss, all of
it is again a quadratic form, up to a constant (completing the square, as in CERWU 2025, arXiv
2505.18758):

    ½ (w - q) H (w - q)ᵀ + ρ/2 ‖q‖² = ½ (w' - q)(H + ρI)(w' - q)ᵀ + const,  w' = w H (H + ρI)⁻¹.

Errors are then fed back by H + ρI from the shrunk w'. Whoever counts the bits themselves takes
ρq² off the cost of each choice: up to a constant, D (x - q)² - ρ q² is (D - ρ)(x D / (D - ρ) - q)².
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_SMALL = 256  # columns of a triangular matrix that is inverted at once


@dataclass(frozen=True)
class Elimination:
    """Columns in the order in which they are quantized, one order for all groups of rows.

    Attributes:
        order: (n,) int64; order[j] is the column that comes j-th.
        factor: U, (groups, n, n) float32, upper triangular, its columns in that order.
        metric: D, (groups, n) float64, in that order: what a squared error of a column costs.
        ridge: ρ, (groups,) float64, which `metric` and `factor` include.
    """

    order: Tensor
    factor: Tensor
    metric: Tensor
    ridge: Tensor

    @property
    def place(self) -> Tensor:
        """(n,) int64: where each column comes in the order; the inverse of `order`."""
        return self.order.argsort()

    @property
    def free_metric(self) -> Tensor:
        """D - ρ, (groups, n) float64, positive: what errors cost a choice that counts its bits."""
        return self.metric - self.ridge[:, None]

    def shrunk(self, matrix: Tensor) -> Tensor:
        """w H (H + ρI)⁻¹ of all rows: (m, n) float32, columns in the matrix's own order."""
        if not bool(self.ridge.any()):
            return matrix
        rows = matrix[:, self.order].unflatten(0, (len(self.ridge), -1))
        less = (rows @ self.factor.mT) @ self.factor * self.ridge.float()[:, None, None]
        return (rows - less).flatten(0, 1)[:, self.place]

    def block_metric(self, start: int, stop: int) -> Tensor:
        """D_b of the columns order[start:stop]: (groups, d, d) float64, symmetric."""
        block = self.factor[:, start:stop, start:stop].double()
        return torch.cholesky_inverse(block, upper=True)


def eliminate(
    hessian: Sequence[Tensor], damping: float, width: int = 1, ridge: Tensor | None = None
) -> Elimination:
    """Order the columns by falling H_jj and factor H⁻¹.

    Blocks of `width` consecutive columns stay together and are ordered by their mean H_jj; a
    shorter last block stays last. Groups share one order, that of the mean of their H_jj, each
    relative to its group's mean: codes can then be coded column by column.

    Time is that of a Cholesky factorization and a triangular inverse in float64; memory is three
    float64 copies of H.

    Args:
        hessian: H as blocks of consecutive columns, (groups, b, b) each, symmetric and positive
            semidefinite; products across blocks are taken to be zero.
        damping: added to the diagonal, as a share of the diagonal's mean. It must be above 0 where
            H is singular. A group that saw no input at all gets the identity.
        width: columns quantized together.
        ridge: ρ of each group, (groups,) >= 0; none by default. Groups without input have none.

    Raises:
        ValueError: H is not positive definite with this damping.
    """
    diagonal = torch.cat([block.diagonal(dim1=1, dim2=2) for block in hessian], 1).double()
    scale = diagonal.mean(1, keepdim=True)
    order = _falling((diagonal / scale.where(scale > 0, 1.0)).mean(0), width)
    groups, n = diagonal.shape
    damped = diagonal.new_zeros(groups, n, n)
    start = 0
    for block in hessian:
        stop = start + block.shape[1]
        damped[:, start:stop, start:stop] = block
        start = stop
    rho = diagonal.new_zeros(groups) if ridge is None else ridge.to(diagonal)
    rho = rho.where(scale[:, 0] > 0, 0.0)
    damped.diagonal(dim1=1, dim2=2).add_((damping * scale).where(scale > 0, 1.0) + rho[:, None])
    # H = R Rᵀ with R upper triangular is a Cholesky factorization that begins at the last column;
    # H⁻¹ = UᵀU then has U = R⁻¹.
    backwards = order.flip(0)
    lower, failed = torch.linalg.cholesky_ex(damped[:, backwards][:, :, backwards])
    if bool(failed.any()):
        raise ValueError(f"the Hessian is not positive definite with a damping of {damping:g}")
    del damped
    factor = lower.flip(1, 2)
    del lower
    _invert_upper(factor)
    metric = factor.diagonal(dim1=1, dim2=2).square().reciprocal()
    return Elimination(order, factor.float(), metric, rho)


def _invert_upper(factor: Tensor) -> None:
    """Invert upper triangular matrices (groups, n, n) in place: halves first, then the corner."""
    n = factor.shape[1]
    if n <= _SMALL:
        identity = torch.eye(n, dtype=factor.dtype, device=factor.device)
        factor.copy_(torch.linalg.solve_triangular(factor, identity, upper=True))
        return
    half = n // 2
    first, second = factor[:, :half, :half], factor[:, half:, half:]
    _invert_upper(first)
    _invert_upper(second)
    factor[:, :half, half:] = -(first @ (factor[:, :half, half:] @ second))


def _falling(diagonal: Tensor, width: int) -> Tensor:
    """The columns (n,), whole blocks by falling mean, a shorter last block at the end."""
    n = len(diagonal)
    blocks = n // width
    means = diagonal[: blocks * width].view(blocks, width).mean(1)
    first = means.argsort(descending=True, stable=True) * width
    columns = first[:, None] + torch.arange(width, device=diagonal.device)
    return torch.cat([columns.flatten(), torch.arange(blocks * width, n, device=diagonal.device)])

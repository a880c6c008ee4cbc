"""Codebooks of least loss for codes that error feedback has chosen.

The decoded matrix is linear in the codebooks, so the loss is a quadratic form of them: least
squares, whose normal equations couple all centroids through H. (Egiazarian et al. 2024, AQLM,
arXiv 2401.06118, section 3.3, fit codebooks to fixed codes likewise.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vqzoo.numerics.feedback.layer import DAMPING, even_weights
from vqzoo.numerics.feedback.low_rank import products_with

# Codebooks, and the rows that are needed (None for all) -> these rows of the decoded matrix.
Decode = Callable[[Sequence[Tensor], Tensor | None], Tensor]

_CONVERGED = 1e-8  # of the squared gradient at the start


def refit_codebooks(
    weight: Tensor,
    codebooks: Sequence[Tensor],
    decode: Decode,
    hessian: Sequence[Tensor],
    row_weights: Tensor,
    rounded: Callable[[Tensor], Tensor],
    steps: int = 10,
    operations: int = 1 << 33,
) -> list[Tensor]:
    """Minimise Σ_i g_i (w_i - q_i) H (w_i - q_i)ᵀ over the codebooks that Q is decoded from.

    Conjugate gradients, begun at the codebooks, multiply by the normal matrix as decoding, a
    product with H (in float32) and decoding's adjoint; their vectors and sums are float64. H is
    damped as for error feedback, and g is kept from extremes. The gradient is that of all rows; the
    curvature of large layers is that of a sample. Where H of a wide layer has a low rank, products
    take factors of it. Takes the memory of about five matrices of the weight's size.

    Args:
        weight: (m, n) float32.
        codebooks: float32 of any shapes, with values as they are stored.
        decode: linear and differentiable in the codebooks: to (rows, n) float32.
        hessian: H as blocks of consecutive columns, (groups, b, b) float32 each.
        row_weights: g, (m,) float32.
        rounded: takes a codebook to the values that are stored of it.
        steps: of conjugate gradients, at most.
        operations: if a product with H takes more, a sample of the rows gives the curvature.

    Returns:
        Codebooks as stored that have a smaller loss, without damping; else those at hand.
    """
    rows = even_weights(row_weights)
    metric = _Metric(hessian)
    with torch.enable_grad():
        variables = [book.detach().clone().requires_grad_() for book in codebooks]
        decoded = decode(variables, None)
    error = weight - decoded.detach()
    gradient = _adjoint(decoded, variables, metric.weighted(error, rows))
    with torch.no_grad():
        ones = decode([torch.ones_like(book) for book in codebooks], None)
    # What squares of changes cost, products of different weights aside.
    masses = _adjoint(decoded, variables, metric.by_diagonal(ones) * rows[:, None])
    sample = _sample(metric, rows, ones.square().mean(1), operations)
    del decoded, ones
    multiply = _normal_matrix(variables, decode, metric, sample, masses)
    change = _solve(gradient, masses, multiply, steps)
    better = [
        rounded((book + part).float())
        for book, part in zip(codebooks, _parts(change, codebooks), strict=True)
    ]
    with torch.no_grad():
        moved = [new - old for new, old in zip(better, codebooks, strict=True)]
        step = decode(moved, None)
    gain = ((2 * error - step) * metric.times(step)).sum(1, dtype=torch.float64) @ rows.double()
    return better if float(gain) > 0 else list(codebooks)


class _Metric:
    """H of a layer, and what error feedback adds to its diagonal.

    Attributes:
        groups: of rows.
        times: M -> M H.
        operations: what that takes for a row of M.
    """

    def __init__(self, hessian: Sequence[Tensor]) -> None:
        self._diagonal = torch.cat([block.diagonal(dim1=1, dim2=2) for block in hessian], 1)
        self._ridge = DAMPING * self._diagonal.mean(1, keepdim=True)
        self.groups = len(self._diagonal)
        self.times, self.operations = products_with(hessian)

    def weighted(self, matrix: Tensor, rows: Tensor) -> Tensor:
        """g (M H + δ M), δ being what error feedback adds to the diagonal of H."""
        ridge = _of_rows(self._ridge, len(matrix))
        return self.times(matrix).addcmul_(ridge, matrix).mul_(rows[:, None])

    def by_diagonal(self, matrix: Tensor) -> Tensor:
        """M diag(H + δI)."""
        return matrix * _of_rows(self._diagonal + self._ridge, len(matrix))


@dataclass(frozen=True)
class _Sample:
    """Rows of the matrix (None for all) that stand for all, and their weights, (rows,)."""

    rows: Tensor | None
    weights: Tensor


def _normal_matrix(
    variables: Sequence[Tensor],
    decode: Decode,
    metric: _Metric,
    sample: _Sample,
    masses: Tensor,
) -> Callable[[Tensor], Tensor]:
    """The product of the normal matrix with a change of all codebooks, flat float64.

    A sample's matrix is scaled to the diagonal of the whole one, `masses`.
    """
    with torch.enable_grad():
        decoded = decode(variables, sample.rows)

    def sampled(change: Tensor) -> Tensor:
        with torch.no_grad():
            step = decode([part.float() for part in _parts(change, variables)], sample.rows)
        return _adjoint(decoded, variables, metric.weighted(step, sample.weights))

    if sample.rows is None:
        return sampled
    with torch.no_grad():
        ones = decode([torch.ones_like(book) for book in variables], sample.rows)
    some = _adjoint(decoded, variables, metric.by_diagonal(ones) * sample.weights[:, None])
    root = torch.where(some > 0, masses / some, 0.0).sqrt()
    alone = masses.where(some <= 0, 0.0)
    return lambda change: root * sampled(root * change) + alone * change


def _solve(
    gradient: Tensor, masses: Tensor, multiply: Callable[[Tensor], Tensor], steps: int
) -> Tensor:
    """A x = gradient by conjugate gradients, preconditioned by the diagonal `masses`."""
    inverse = torch.where(masses > 0, 1 / masses.clamp(min=1e-300), 0.0)
    solution = torch.zeros_like(gradient)
    direction = inverse * gradient
    norm = float(gradient @ direction)
    converged = _CONVERGED * norm
    for _ in range(steps):
        if not norm > converged:
            break
        product = multiply(direction)
        curvature = float(direction @ product)
        if not curvature > 0:
            break
        solution += norm / curvature * direction
        gradient = gradient - norm / curvature * product
        step = inverse * gradient
        previous, norm = norm, float(gradient @ step)
        direction = step + norm / previous * direction
    return solution


def _of_rows(by_group: Tensor, m: int) -> Tensor:
    """Values of groups for their rows: (groups, ...) as (m, ...), or (1, ...) of the only one."""
    groups = len(by_group)
    return by_group if groups == 1 else by_group.repeat_interleave(m // groups, 0)


def _sample(metric: _Metric, rows: Tensor, energies: Tensor, operations: int) -> _Sample:
    """As many rows as can be multiplied by H in so many operations.

    At least one of each group and equally many, drawn systematically in proportion to what errors
    cost in them; all rows if they are few enough.

    Args:
        metric: of the layer.
        rows: g, (m,).
        energies: (m,): the mean square of what a codebook of ones decodes to.
    """
    groups = metric.groups
    count = max(1, operations // (metric.operations * groups))
    height = len(rows) // groups
    if count >= height:
        return _Sample(None, rows)
    costs = (rows * energies).double().view(groups, height)
    reach = costs.cumsum(1)
    places = (torch.arange(count, device=rows.device) + 0.5) / count * reach[:, -1:]
    chosen = torch.searchsorted(reach, places).clamp(max=height - 1)
    scale = reach[:, -1:] / (count * costs.gather(1, chosen))
    first = torch.arange(groups, device=rows.device)[:, None] * height
    index = (first + chosen).flatten()
    return _Sample(index, rows[index] * scale.flatten().float())


def _adjoint(decoded: Tensor, variables: Sequence[Tensor], matrix: Tensor) -> Tensor:
    """The adjoint of decoding: sums of a matrix by code, of all codebooks, flat float64."""
    sums = torch.autograd.grad(decoded, variables, matrix, retain_graph=True)
    return torch.cat([part.double().flatten() for part in sums])


def _parts(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """A flat vector as tensors of the shapes of others."""
    pieces = flat.split([book.numel() for book in like])
    return [piece.view(book.shape) for piece, book in zip(pieces, like, strict=True)]

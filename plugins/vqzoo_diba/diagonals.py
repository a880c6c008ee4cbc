"""The diagonals of D1·B1·D2·B2·D3 by least squares, with fixed binary factors."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqzoo.numerics.compiled import compiled
from vqzoo_diba.products import gram, product

_EXACT = 2048  # components up to which the Gram matrix is in float64
_STEPS = 100  # of conjugate gradients, at most
_CONVERGED = 1e-6  # the norm of the gradient that is left, relative to its start


def row_factors(matrix: Tensor, approximation: Tensor) -> Tensor:
    """The factors <A_i, R_i> / <R_i, R_i> that scale the rows R_i of an approximation of A.

    A row of zeros, or one orthogonal to its target, keeps its scale: from a scale of zero, no flip
    could ever recover.

    Args:
        matrix: float32, (m, n).
        approximation: float32, (m, n).

    Returns:
        float32, (m,).
    """
    exact = approximation.double()
    dots = torch.linalg.vecdot(matrix.double(), exact)
    norms = torch.linalg.vecdot(exact, exact)
    usable = (norms > 0) & (dots != 0)
    return torch.where(usable, dots / norms.where(usable, 1.0), 1.0).float()


def core_correction(residual: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """The correction of D2: argmin over x of ‖residual − left·diag(x)·right‖_F².

    The normal equations are k × k, with the Gram matrix (leftᵀ·left) ∘ (right·rightᵀ) and the right
    side diag(leftᵀ·residual·rightᵀ). The matrix is singular if components are zero or equal up to
    a factor; conjugate gradients from zero still find a least-squares solution, in float64 for up
    to 2,048 components.

    Args:
        residual: float32, (m, n).
        left: float32, (m, k).
        right: float32, (k, n).

    Returns:
        float32, (k,).
    """
    target = (product(left.T.contiguous(), residual) * right).double().sum(dim=1)
    dtype = torch.float64 if left.shape[1] <= _EXACT else torch.float32
    normal = gram(left.to(dtype)).mul_(gram(right.T.to(dtype)))
    return _conjugate_gradients(normal, target.to(dtype)).float()


def _conjugate_gradients(normal: Tensor, target: Tensor) -> Tensor:
    """Solve a positive semidefinite system, preconditioned by its diagonal."""
    return torch.from_numpy(_solve(normal.numpy(), target.numpy()))


@compiled()
def _solve(normal: Any, target: Any) -> Any:
    solution, residual, step = np.zeros_like(target), target.copy(), np.zeros_like(target)
    image, direction = np.empty_like(target), np.zeros_like(target)
    norm = first = 0.0
    for iteration in range(_STEPS):
        previous, norm = norm, 0.0
        for i in range(len(target)):
            step[i] = residual[i] / normal[i, i] if normal[i, i] > 0 else 0
            norm += residual[i] * step[i]
        first = norm if iteration == 0 else first
        image[:] = 0
        for i in range(len(target)):
            direction[i] = step[i] + (norm / previous * direction[i] if iteration else 0)
            for j in range(len(target)):
                image[j] += direction[i] * normal[i, j]
        curvature = 0.0
        for i in range(len(target)):
            curvature += direction[i] * image[i]
        if norm <= _CONVERGED**2 * first or curvature <= 0:
            break
        for i in range(len(target)):
            solution[i] += norm / curvature * direction[i]
            residual[i] -= norm / curvature * image[i]
    return solution

"""The joint least-squares fit of residual codebooks to the codes of their points."""

import numpy as np

from vqzoo.numerics.arrays import Codes, Doubles, Floats
from vqzoo.numerics.kernels.beam import add_residuals
from vqzoo.numerics.threads import run_tasks

# The same on every device:
ROUNDS = 3  # of refit and new codes, after each stage but the first
STEPS = 8  # of conjugate gradients, at most
CONVERGED = 1e-16  # the squared gradient that is left, relative to its start: rounding

_POINTS = 1 << 14  # points a task, at least
_TASKS = 16  # partial sums


def refit_codebooks(x: Floats, w: Floats, codes: Codes, codebooks: Floats) -> Floats:
    """The codebooks of least weighted squared error for given codes, by conjugate gradients.

    The normal equations couple the centroids that add up to the same point. Their product with a
    vector is a decoding followed by sums by code, so the matrix itself is never formed.

    Args:
        x: points (d, n).
        w: (n,), the weights of the points.
        codes: (stages, n).
        codebooks: (stages, k, d), where the iterations start.

    Returns:
        (stages, k, d).
    """
    stages, k, d = codebooks.shape
    n = x.shape[1]
    width = max(_POINTS, stages * k, -(-n // _TASKS))
    zeros = np.empty((0, n), np.float32)  # stands for points of zeros

    def residual_sums(points: Floats, books: Doubles) -> tuple[Doubles, Doubles]:
        """By code: the sums of w·(x - x̂), and of w."""

        def work(start: int) -> tuple[Doubles, Doubles]:
            sums, masses = np.zeros((stages, k, d)), np.zeros((stages, k))
            add_residuals(points, w, codes, books, start, min(start + width, n), sums, masses)
            return sums, masses

        parts = run_tasks(work, range(0, n, width))
        return np.sum([p[0] for p in parts], axis=0), np.sum([p[1] for p in parts], axis=0)

    solution = codebooks.astype(np.float64)
    gradient, masses = residual_sums(x, solution)
    inverse = np.divide(1.0, masses, out=np.zeros_like(masses), where=masses > 0)[:, :, None]
    direction = step = inverse * gradient
    norm = float((gradient * step).sum())
    converged = CONVERGED * norm
    for _ in range(STEPS):
        product = -residual_sums(zeros, direction)[0]
        curvature = float((direction * product).sum())
        if norm <= converged or curvature <= CONVERGED * norm:
            break
        solution = solution + norm / curvature * direction
        gradient = gradient - norm / curvature * product
        step = inverse * gradient
        previous, norm = norm, float((gradient * step).sum())
        direction = step + norm / previous * direction
    return solution.astype(np.float32)

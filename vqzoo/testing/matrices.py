"""The matrices on which a method is tested, of many shapes and many distributions of values."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """A layer to test a method on.

    Attributes:
        name: its name in messages.
        kind: "linear", "conv1d" or "conv2d".
        shape: of the weight; the matrix has shape[0] rows.
        groups: groups of a convolution.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    groups: int = 1

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(m, n) of the weight as a matrix."""
        return self.shape[0], math.prod(self.shape[1:])


SHAPES = (
    Case("1 × 1", "linear", (1, 1)),
    Case("one row", "linear", (1, 7)),
    Case("one column", "linear", (7, 1)),
    Case("primes", "linear", (13, 11)),
    Case("columns that 4 and 8 do not divide", "linear", (16, 10)),
    Case("square power of two", "linear", (32, 32)),
    Case("conv2d", "conv2d", (8, 3, 3, 3)),
    Case("conv2d, 1 × 1 kernel", "conv2d", (12, 5, 1, 1)),
    Case("conv2d in groups", "conv2d", (8, 2, 3, 3), 4),
    Case("depthwise conv2d", "conv2d", (8, 1, 3, 3), 8),
    Case("conv1d", "conv1d", (6, 4, 3)),
)
ODD = Case("10 × 77", "linear", (10, 77))
REFERENCE = Case("64 × 48", "linear", (64, 48))


def gaussian(case: Case, seed: int = 0) -> Tensor:
    """Draw normally distributed weights, float32, (m, n), from a seed."""
    return torch.randn(case.matrix_shape, generator=torch.Generator().manual_seed(seed))


def _rows_of_many_scales(matrix: Tensor) -> Tensor:
    return matrix * torch.logspace(-6, 6, matrix.shape[0])[:, None]


def _one_weight(matrix: Tensor) -> Tensor:
    sparse = torch.zeros_like(matrix)
    sparse[1, 1] = 3.0
    return sparse


def _outlier(matrix: Tensor) -> Tensor:
    changed = matrix.clone()
    changed[2, 3] = 1e20
    return changed


VALUES: dict[str, Callable[[Tensor], Tensor]] = {
    "zero": torch.zeros_like,
    "constant": lambda matrix: torch.full_like(matrix, -0.3),
    "a single nonzero weight": _one_weight,
    "two values": torch.sign,
    "huge": lambda matrix: matrix * 1e30,
    "tiny": lambda matrix: matrix * 1e-30,
    "rows of very different scale": _rows_of_many_scales,
    "one outlier": _outlier,
}

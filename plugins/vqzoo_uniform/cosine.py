"""The cosine transform of a convolution's kernels.

Neighbouring taps of a kernel see nearly the same inputs, and their weights are alike. The DCT-II of
the taps, an orthonormal matrix B, separates a kernel's mean, where errors cost most, from its fine
structure. With T holding B once for each input channel, W' = W Tᵀ and x' = T x have the products of
W and x, and H' = T H Tᵀ.
"""

import math
import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vqzoo.numerics.arrays import Doubles
from vqzoo.plugin import LayerContext, SecondOrder

MAX_TAPS = 1024  # of a kernel: B has at most 2^20 values
_KERNEL = re.compile(r"[1-9]\d{0,3}(x[1-9]\d{0,3}){0,2}", re.ASCII)


def kernel_sides(weight: Tensor, context: LayerContext) -> tuple[int, ...] | None:
    """The sides of a convolution's kernels, where they have several taps and lie along its rows.

    Args:
        weight: the matrix to compress, (m, n).
        context: the layer. Where it is a transform's matrix, or a block of H cuts through a kernel,
            there is nothing to transform.
    """
    if context.kind not in ("conv1d", "conv2d", "conv3d"):
        return None
    sides = context.shape[2:]
    taps = math.prod(sides)
    if not 1 < taps <= MAX_TAPS:
        return None
    if tuple(weight.shape) != (context.shape[0], math.prod(context.shape[1:])):
        return None
    known = context.second_order
    if known is not None and any(block.shape[1] % taps for block in known.hessian):
        return None
    return sides


def kernel_text(sides: Sequence[int]) -> str:
    """Sides as codes hold them: "3x3"."""
    return "x".join(map(str, sides))


def read_kernel(text: object) -> tuple[int, ...]:
    """The sides in a code.

    Raises:
        ValueError: this is not what `kernel_text` writes for a kernel of 2 to `MAX_TAPS` taps.
    """
    if isinstance(text, str) and _KERNEL.fullmatch(text):
        sides = tuple(map(int, text.split("x")))
        if 1 < math.prod(sides) <= MAX_TAPS:
            return sides
    raise ValueError(f"{text!r:.40} is no kernel of 2 to {MAX_TAPS} taps")


def cosine_basis(sides: Sequence[int]) -> Tensor:
    """B: (taps, taps) float64, a row for each frequency; frequencies and taps in C order."""
    basis: Doubles = np.ones((1, 1))
    for side in sides:
        basis = np.kron(basis, _cosines(side)).astype(np.float64)
    return torch.from_numpy(basis)


def _cosines(size: int) -> Doubles:
    places = np.arange(size)
    waves: Doubles = np.cos(math.pi / size * np.outer(places, places + 0.5)) * math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    return waves


def coding_gain(matrix: Tensor, basis: Tensor) -> float:
    """Bits a weight that the transform saves at high rates.

    There, weights of variance σ_ij² take log2(σ_ij) bits, up to what T does not change: the product
    of all D_j is det H. σ_ij² is taken to be a factor a row times a factor a column.
    """
    return _mean_log2(matrix) - _mean_log2(transformed(matrix, basis))


def _mean_log2(matrix: Tensor) -> float:
    energy = matrix.double().square()
    rows = energy.mean(1, keepdim=True)
    columns = (energy / rows.where(rows > 0, 1.0)).mean(0)
    return float(columns.clamp_min(1e-30).log2().mean() / 2)


def transformed(matrix: Tensor, basis: Tensor) -> Tensor:
    """Rows times Tᵀ: (..., n) float32, in float64 between."""
    kernels = matrix.detach().double().unflatten(-1, (-1, len(basis)))
    return (kernels @ basis.T.to(matrix.device)).flatten(-2).float()


def transformed_back(matrix: Tensor, basis: Tensor) -> Tensor:
    """Rows times T, differentiable: (m, n) float32. The inverse of `transformed`."""
    kernels = matrix.unflatten(1, (-1, len(basis)))
    return (kernels @ basis.to(matrix)).flatten(1)


def transformed_statistics(known: SecondOrder, basis: Tensor) -> SecondOrder:
    """What errors of the transformed weights cost: T H Tᵀ."""
    blocks = (transformed(transformed(block, basis).mT, basis) for block in known.hessian)
    return SecondOrder(tuple(block.contiguous() for block in blocks), known.row_weights)

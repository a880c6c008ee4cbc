"""The error of a layer's output in the place of that of its weights, by calibration inputs.

Stock et al. 2020 (arXiv 1907.05686), section 3.2: ‖x(W - Ŵ)ᵀ‖² instead of ‖W - Ŵ‖².
"""

import torch
from torch import Tensor

from vqzoo_vq.blocks import Cut

_RIDGE = 0.01  # of the mean square, so that directions absent from the sample count a little
_ROWS = 1024  # of the inputs, which suffice for the row scales


def column_moments(inputs: Tensor) -> Tensor:
    """(n,): the mean squares of the columns of inputs (r, n), plus the ridge."""
    squares = inputs.square().mean(0)
    return squares + _RIDGE * squares.mean().clamp(min=1e-20)


def block_moments(inputs: Tensor, shape: Cut) -> list[Tensor]:
    """The second moments of each block's columns plus the ridge: (blocks, d, d) for whole blocks,
    (1, tail, tail) for the tail; float64, positive definite."""
    ridge = _RIDGE * inputs.double().square().mean().clamp(min=1e-20)
    moments, start = [], 0
    for blocks, d in shape.widths:
        columns = inputs[:, start : start + blocks * d].unflatten(1, (blocks, d)).transpose(0, 1)
        moment = (columns.mT @ columns).double() / len(inputs)
        moments.append(moment + ridge * torch.eye(d, dtype=torch.float64, device=moment.device))
        start += blocks * d
    return moments


def outputs(matrix: Tensor, inputs: Tensor | None) -> Tensor:
    """The outputs of the rows of a matrix (m, r) by which scales are fitted; without inputs, the
    rows themselves."""
    return matrix if inputs is None else matrix @ inputs[:_ROWS].T

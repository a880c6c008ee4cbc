"""One scale a row, so that rows of very different size can share a codebook."""

import math
from typing import Literal

import torch
from torch import Tensor

from vqzoo.numerics.rows import for_rows
from vqzoo.plugin import Code, Floats
from vqzoo_vq.calibrated import outputs

Scale = Literal["none", "row"]
SCALE_BITS = 16


def row_sizes(weight: Tensor, scale: Scale) -> Tensor | None:
    """(m, 1): the rows' root mean square, 1 for rows of zeros, by which to divide them before they
    are clustered; None where they stay as they are."""
    if scale == "none":
        return None
    sizes = weight.new_empty(weight.shape[0], 1)

    def measure(rows: slice, buffer: Tensor) -> None:
        peak = torch.abs(weight[rows], out=buffer[0]).amax(dim=1, keepdim=True)
        peak = peak.where(peak > 0, 1.0)  # taken out first: squares of the weights could overflow
        divided = torch.div(weight[rows], peak, out=buffer[0])
        norm = torch.linalg.vector_norm(divided, dim=1, keepdim=True)
        rms = peak * norm / math.sqrt(weight.shape[1])
        sizes[rows] = rms.where(rms > 0, 1.0)

    for_rows(weight, measure)
    return sizes


def fit_row_scale(weight: Tensor, normalized: Tensor, inputs: Tensor | None = None) -> Floats:
    """The scales of least squared error, <w_i, q_i> / <q_i, q_i>, for rows q_i of the decoded
    normalized matrix; (m,) in float16. With calibration inputs, of the layer's output."""
    weight, normalized = outputs(weight, inputs), outputs(normalized, inputs)
    energy = _row_products(normalized, normalized)
    scales = _row_products(weight, normalized) / energy.where(energy > 0, 1.0)
    return Floats.scales(scales)


def _row_products(a: Tensor, b: Tensor) -> Tensor:
    """<a_i, b_i> for the rows of two matrices."""
    products = a.new_empty(a.shape[0])

    def multiply(rows: slice, buffer: Tensor) -> None:
        torch.sum(torch.mul(a[rows], b[rows], out=buffer[0]), dim=1, out=products[rows])

    for_rows(a, multiply)
    return products


def scale_layout(m: int, scale: Scale) -> dict[str, Floats]:
    """The part `scale` of an m-row matrix, where there is one, without values."""
    return {"scale": Floats.layout("float16", m)} if scale == "row" else {}


def check_row_scale(code: Code) -> None:
    """Raises ValueError unless the part `scale`, where there is one, has a scale a row."""
    if "scale" in code.parts:
        code.require_floats("scale", code.shape[:1])


def scale_bits(m: int, scale: Scale) -> int:
    """Stored bits of the scales of an m-row matrix."""
    return SCALE_BITS * m if scale == "row" else 0


def scale_rows(matrix: Tensor, scales: Tensor | None) -> Tensor:
    """Multiply rows by their scales; in place when nothing is to be differentiated."""
    if scales is None:
        return matrix
    if torch.is_grad_enabled() and (matrix.requires_grad or scales.requires_grad):
        return matrix * scales[:, None]
    return matrix.mul_(scales[:, None])

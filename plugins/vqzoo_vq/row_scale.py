"""A scale for each row, so that rows of very different sizes can share a codebook."""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from vqzoo.numerics.arrays import empty
from vqzoo.numerics.rows import for_rows
from vqzoo.numerics.tracing import is_traced
from vqzoo.plugin import Code, Floats

Scale = Literal["none", "row"]
_FEW = 1 << 18  # weights that are scaled sooner than shared out among threads


def row_sizes(weight: Tensor, scale: Scale) -> Tensor | None:
    """(m, 1): the rows' root mean squares, by which they are divided before clustering (1 for rows
    of zeros); None without row scales."""
    if scale == "none":
        return None
    sizes = weight.new_empty(weight.shape[0], 1)

    def measure(rows: slice, buffer: Tensor) -> None:
        peak = torch.abs(weight[rows], out=buffer[0]).amax(dim=1, keepdim=True)
        peak = peak.where(peak > 0, 1.0)  # divided by first: the weights' squares could overflow
        divided = torch.div(weight[rows], peak, out=buffer[0])
        norm = torch.linalg.vector_norm(divided, dim=1, keepdim=True)
        rms = peak * norm / math.sqrt(weight.shape[1])
        sizes[rows] = rms.where(rms > 0, 1.0)

    for_rows(weight, measure)
    return sizes


def divide_rows(weight: Tensor, sizes: Tensor) -> Tensor:
    """A matrix with its rows divided by `sizes`, (m, 1)."""
    normalized = empty(weight.shape, weight.dtype, weight.device)

    def divide(rows: slice, buffer: Tensor) -> None:
        torch.div(weight[rows], sizes[rows], out=normalized[rows])

    for_rows(weight, divide, buffers=0)
    return normalized


def fit_row_scale(weight: Tensor, normalized: Tensor) -> Floats:
    """The scales of least squared error, <w_i, q_i> / <q_i, q_i>, for rows q_i of the decoded
    normalized matrix: (m,), float16."""
    energy, product = weight.new_empty(2, weight.shape[0])

    def multiply(rows: slice, buffer: Tensor) -> None:
        w, q = weight[rows], normalized[rows]
        torch.sum(torch.mul(q, q, out=buffer[0]), dim=1, out=energy[rows])
        torch.sum(torch.mul(w, q, out=buffer[0]), dim=1, out=product[rows])

    for_rows(weight, multiply)
    return Floats.scales(product / energy.where(energy > 0, 1.0))


def scale_layout(m: int, scale: Scale) -> dict[str, Floats]:
    """The layout of the part `scale` of an m-row matrix, if there is one."""
    return {"scale": Floats.layout("float16", m)} if scale == "row" else {}


def check_row_scale(code: Code) -> None:
    """Raise ValueError unless the part `scale`, if there is one, has a scale for each row."""
    if "scale" in code.parts:
        code.require_floats("scale", code.shape[:1])


def row_scale_column(floats: Mapping[str, Tensor]) -> Tensor | None:
    """The part `scale` as (m, 1); None without it."""
    return floats["scale"][:, None] if "scale" in floats else None


def scale_product(product: Tensor | None, scales: Tensor | None) -> Tensor | None:
    """The product x·Wᵀ with a matrix of scaled rows, from that without scales; in place.

    Args:
        product: (r, m), or None where there is none.
        scales: (m,), or None for rows without scales.
    """
    if product is None or scales is None:
        return product
    return product.mul_(scales.detach())


def scale_rows(matrix: Tensor, scales: Tensor | None) -> Tensor:
    """Multiply rows by their scales; in place unless a gradient is needed or torch traces."""
    if scales is None:
        return matrix
    trained = torch.is_grad_enabled() and (matrix.requires_grad or scales.requires_grad)
    if trained or is_traced():
        return matrix * scales[:, None]
    factors = scales.detach()[:, None]
    if matrix.numel() <= _FEW:
        return matrix.mul_(factors)

    def scale(rows: slice, buffer: Tensor) -> None:
        matrix[rows].mul_(factors[rows])

    for_rows(matrix, scale, buffers=0)
    return matrix

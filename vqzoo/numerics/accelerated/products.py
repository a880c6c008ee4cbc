"""Products with codes on a device other than the CPU, by Triton's kernels."""

import torch
from torch import Tensor

from vqzoo.numerics.accelerated.accelerators import has_triton

MOST = 8  # inputs; with more, decoding is faster
_WIDEST = 32  # values of a centroid


def multiply_scalars_on_device(
    x: Tensor, codes: Tensor, width: int, table: Tensor, zero: int | None
) -> Tensor | None:
    """`decoding.scalar_product.multiply_scalars` of tensors on a device; None where the codes are
    to be decoded."""
    if not 0 < len(x) <= MOST or width > 8 or not has_triton(x.device):
        return None
    from vqzoo.numerics.accelerated import triton_products

    return triton_products.multiply_scalars(x, codes, width, table.to(x.device), zero)


def multiply_residual_on_device(
    x: Tensor, codes: Tensor, codebooks: Tensor, width: int
) -> Tensor | None:
    """`decoding.product.multiply_residual` of tensors on a device, whose shapes have been checked;
    None where the codes are to be decoded."""
    fits = codebooks.shape[3] <= _WIDEST and codes.dtype != torch.int32
    if not 0 < len(x) <= MOST or not fits or not has_triton(x.device):
        return None
    from vqzoo.numerics.accelerated import triton_products

    return triton_products.multiply_residual(x, codes, codebooks, width)

"""Products of Linear layers, and of convolutions that multiply each input as a whole."""

from typing import Any

import torch
from torch import Tensor, nn

from vqzoo.compression.products.prepared import Prepared
from vqzoo.compression.products.tiles import Tiles

_HALVES = (torch.float16, torch.bfloat16)
_SAME = "timm.layers.linear.Linear.forward"  # differs from torch's under torch.jit.script alone


def is_plain_linear(kind: type[nn.Module]) -> bool:
    """Whether a class multiplies as torch's own Linear does."""
    if not issubclass(kind, nn.Linear):
        return False
    forward = kind.forward
    return forward is nn.Linear.forward or f"{forward.__module__}.{forward.__qualname__}" == _SAME


def multiply(
    prepared: Prepared, tiles: Tiles | None, x: Tensor, bias: Tensor | None
) -> Tensor | None:
    """x·Wᵀ + bias: by a small W that is kept, by the method's own product, or by some rows of W.

    Args:
        prepared: the code of W.
        tiles: its rows; None to leave it at the method's product.
        x: (..., n), without gradient.
        bias: (m,).

    Returns:
        (..., m), of the dtype of x; None where neither takes x.
    """
    is_kept = tiles is not None and tiles.is_kept
    is_taken = x.dtype == torch.float32 or (x.device.type != "cpu" and x.dtype in _HALVES)
    if is_taken and not is_kept:
        product = prepared.multiply(x.float())
        if product is not None:
            product = product if bias is None else product.add_(bias.detach())
            return product.to(x.dtype)
    if tiles is None or x.shape[-1:] != tiles.shape[1:]:
        return None
    with torch.no_grad():
        rows = tiles.multiply(x.reshape(-1, x.shape[-1]), bias)
        return rows.view(*x.shape[:-1], rows.shape[1])


def meets_whole_inputs(layer: Any, shape: tuple[int, ...], x: Tensor) -> bool:
    """Whether a convolution of one group has one output position, that of the whole input.

    Args:
        layer: the convolution.
        shape: of its weight.
        x: its input, (..., channels, sizes).
    """
    if x.shape[1 - len(shape) :] != shape[1:] or any(layer._reversed_padding_repeated_twice):
        return False
    pairs = zip(shape[2:], layer.dilation, strict=True)
    return all(size == 1 or dilation == 1 for size, dilation in pairs)

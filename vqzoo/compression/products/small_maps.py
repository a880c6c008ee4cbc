"""Convolutions with few output positions, as products of matrices."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from vqzoo.compression.products.tiles import FEW_COLUMNS, Tiles
from vqzoo.numerics.arrays import Ints
from vqzoo.numerics.decoding.panel_product import gathered

_VALUES = 1 << 22  # of a matrix of inputs, each of which it may repeat


def convolve_small(layer: Any, shape: tuple[int, ...], tiles: Tiles, x: Tensor) -> Tensor | None:
    """What a convolution of one group answers on small maps.

    Args:
        layer: the convolution.
        shape: of its weight.
        tiles: the rows of its weight, as a matrix.
        x: float32 on the CPU, (batch, channels, ...).

    Returns:
        The forward pass's result; None where maps are large, or smaller than the kernel.
    """
    around, kernel = layer._reversed_padding_repeated_twice, shape[2:]
    sizes = [size + before + after for size, before, after in
             zip(x.shape[2:], around[-2::-2], around[-1::-2], strict=True)]  # fmt: skip
    steps = list(zip(sizes, kernel, layer.dilation, layer.stride, strict=True))
    maps = [(size - dilation * (k - 1) - 1) // stride + 1 for size, k, dilation, stride in steps]
    positions = len(x) * math.prod(maps)
    few = 0 < positions <= FEW_COLUMNS and positions * tiles.shape[1] <= _VALUES
    if min(maps) < 1 or not few:
        return None
    if any(around):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x = F.pad(x, around, mode=mode)
    x = x.contiguous()
    inner = x.stride()[2:]
    taps = [step * dilation for step, dilation in zip(inner, layer.dilation, strict=True)]
    jumps = [step * stride for step, stride in zip(inner, layer.stride, strict=True)]
    rows = _grid((shape[1], *kernel), (x.stride(1), *taps))
    columns = _grid((len(x), *maps), (x.stride(0), *jumps))
    products = tiles.multiply_columns(gathered(x, rows, columns), layer.bias)
    return products.view(shape[0], len(x), *maps).transpose(0, 1).contiguous()


def _grid(lengths: Sequence[int], strides: Sequence[int]) -> Ints:
    """The flat positions of a grid's points, the last axis fastest."""
    places = np.zeros(1, np.int64)
    for length, stride in zip(lengths, strides, strict=True):
        if length == 1:
            continue
        places = np.add.outer(places, np.arange(length, dtype=np.int64) * stride).reshape(-1)
    return places

"""Convolutions with few output positions, as products of matrices."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from vqzoo.compression.products.tiles import FEW_COLUMNS, Tiles
from vqzoo.numerics.arrays import Ints
from vqzoo.numerics.decoding.panel_product import Places, gathered, places_of

_VALUES = 1 << 22  # of a matrix of inputs, each of which it may repeat
_OUTSIDE = -(1 << 48)  # a place that stays negative when those of other axes are added


@dataclass(frozen=True)
class _Axis:
    """A spatial axis of a convolution.

    Attributes:
        size: of the input.
        before: zeros in front of it.
        after: zeros behind it.
        taps: of the kernel.
        dilation: positions from tap to tap.
        stride: positions from output to output.
    """

    size: int
    before: int
    after: int
    taps: int
    dilation: int
    stride: int

    @property
    def outputs(self) -> int:
        """The number of outputs; below 1 where the kernel is larger than the input."""
        reach = self.dilation * (self.taps - 1) + 1
        return (self.size + self.before + self.after - reach) // self.stride + 1

    def places(self, step: int) -> Ints:
        """Where each tap meets the input for each output, (taps, outputs), `step` from position to
        position; negative outside."""
        taps = np.arange(self.taps) * self.dilation - self.before
        found = np.add.outer(taps, np.arange(self.outputs) * self.stride)
        return np.where((found >= 0) & (found < self.size), found * step, _OUTSIDE)


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
    axes = _axes(layer, shape, x)
    maps = [axis.outputs for axis in axes]
    positions = len(x) * math.prod(maps)
    few = 0 < positions <= FEW_COLUMNS and positions * tiles.shape[1] <= _VALUES
    if min(maps) < 1 or not few:
        return None
    if layer.padding_mode != "zeros":
        x = F.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)
        axes = _axes(layer, shape, x, padded=True)
    x = x.contiguous()
    places = _places(tuple(axes), len(x), shape[1])
    panels = gathered(x, shape[1], math.prod(x.shape[2:]), places)
    products = tiles.multiply_columns(panels, layer.bias)
    return products.view(shape[0], len(x), *maps).transpose(0, 1).contiguous()


def _axes(layer: Any, shape: tuple[int, ...], x: Tensor, padded: bool = False) -> list[_Axis]:
    around = [0] * 2 * len(shape[2:]) if padded else layer._reversed_padding_repeated_twice
    each = zip(
        x.shape[2:],
        around[-2::-2],
        around[-1::-2],
        shape[2:],
        layer.dilation,
        layer.stride,
        strict=True,
    )
    return [_Axis(*axis) for axis in each]


@lru_cache(maxsize=64)  # of the layers of a network, many are of one shape
def _places(axes: tuple[_Axis, ...], inputs: int, channels: int) -> Places:
    """Where the taps of the kernel meet the first channel of each input for each output, (taps,
    inputs · outputs); inputs are contiguous."""
    sizes = [axis.size for axis in axes]
    places = np.arange(inputs)[None] * (channels * math.prod(sizes))
    for i, axis in enumerate(axes):
        more = axis.places(math.prod(sizes[i + 1 :]))
        both = places[:, None, :, None] + more[None, :, None, :]
        places = both.reshape(len(places) * len(more), -1)
    return places_of(places)

"""Convolutions by a few output channels at a time."""

from collections.abc import Callable, Iterator
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from vqzoo.compression.products.linear import meets_whole_inputs, multiply
from vqzoo.compression.products.small_maps import convolve_small
from vqzoo.compression.products.tiles import TILE, Tiles, takes_columns

_CONVOLUTIONS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: F.conv1d,
    nn.Conv2d: F.conv2d,
    nn.Conv3d: F.conv3d,
}


def is_plain_convolution(kind: type[nn.Module]) -> bool:
    """Whether a class convolves as torch's own Conv1d, Conv2d and Conv3d do."""
    return _base(kind) is not None


def convolve(
    layer: Any, kind: type[nn.Module], shape: tuple[int, ...], tiles: Tiles, x: Tensor
) -> Tensor | None:
    """What a convolution answers.

    Args:
        layer: the convolution.
        kind: the class whose forward pass it has, which `is_plain_convolution`.
        shape: of its weight.
        tiles: the rows of its weight, as a matrix.
        x: its input, with or without a batch axis, without gradient.

    Returns:
        The forward pass's result; None where the layer takes no such input.
    """
    axis = x.dim() - len(shape) + 1  # of the channels
    if axis not in (0, 1) or x.shape[axis] != shape[1] * layer.groups:
        return None
    bias = layer.bias
    if layer.groups == 1 and meets_whole_inputs(layer, shape, x):
        products = multiply(tiles.prepared, tiles, x.reshape(*x.shape[:axis], -1), bias)
        assert products is not None
        return products.view(*products.shape, *(1 for _ in shape[2:]))
    if layer.groups == 1 and takes_columns(x) and tiles.meets_columns:
        answer = convolve_small(layer, shape, tiles, x if axis else x[None])
        if answer is not None:
            return answer if axis else answer[0]
    convolution, padding = _CONVOLUTIONS[_base(kind)], layer.padding
    if layer.padding_mode != "zeros":
        x = F.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)
        padding = 0
    out: Tensor | None = None
    for start, stop, groups in _spans(tiles, layer.groups):
        weight = tiles.decode(start, stop).view(stop - start, *shape[1:]).to(x.dtype)
        first = start // (shape[0] // layer.groups) * shape[1]
        part = x if groups == layer.groups else x.narrow(axis, first, groups * shape[1])
        shift = None if bias is None else bias[start:stop]
        answer = convolution(part, weight, shift, layer.stride, padding, layer.dilation, groups)
        if stop - start == shape[0]:
            return answer
        if out is None:
            sizes = list(answer.shape)
            sizes[axis] = shape[0]
            out = answer.new_empty(sizes)
        out.narrow(axis, start, stop - start).copy_(answer)
    assert out is not None
    return out


def _spans(tiles: Tiles, groups: int) -> Iterator[tuple[int, int, int]]:
    """The first row of each tile, the row behind its last one, and the groups of the convolution
    that it spans: several whole ones, or a part of one."""
    m, n = tiles.shape
    height = m // groups
    if groups == 1 or height * n <= TILE or height % tiles.step:
        for start, stop in tiles.spans(height if groups > 1 else 1):
            yield start, stop, (stop - start) // height if groups > 1 else 1
        return
    inner = max(1, TILE // n // tiles.step) * tiles.step
    for group in range(0, m, height):
        for start in range(group, group + height, inner):
            yield start, min(start + inner, group + height), 1


def _base(kind: type[nn.Module]) -> Any:
    for base in _CONVOLUTIONS:
        same = getattr(kind, "forward", None) is base.forward
        if issubclass(kind, base) and same and kind._conv_forward is base._conv_forward:  # type: ignore[attr-defined]
            return base
    return None

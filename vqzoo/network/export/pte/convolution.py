"""Convolutions as matrix products, since XNNPACK convolves with constant weights alone."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Pair = tuple[int, int]


class DecodedConvolutions(TorchFunctionMode):
    """While it is active, convolutions with weights that are no parameters become products."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, or its substitute."""
        settings = kwargs or {}
        if func is F.conv2d:
            products = _as_products(*args, **settings)
            if products is not None:
                return products
        return func(*args, **settings)


def _as_products(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor | None:
    """What `F.conv2d` computes; None where it is to do so itself."""
    if isinstance(weight, nn.Parameter) or isinstance(padding, str) or input.ndim != 4:
        return None
    return convolution_by_products(
        input, weight, bias, _pair(stride), _pair(padding), _pair(dilation), groups
    )


def _pair(value: int | Sequence[int]) -> Pair:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values[0], values[-1]


def convolution_by_products(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> Tensor:
    """The convolution of images by slices, products and sums.

    Args:
        images: (count, channels, height, width).
        weight: (outputs, channels / groups, kernel height, kernel width).
        bias: (outputs,), or None.
        stride: of rows and columns.
        padding: zeros on both sides of rows and of columns.
        dilation: of rows and columns.
        groups: of channels.

    Returns:
        (count, outputs, rows, columns).
    """
    if any(padding):
        images = F.pad(images, (padding[1], padding[1], padding[0], padding[0]))
    kernel = weight.shape[2:]
    sizes = [
        (images.shape[2 + axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1
        for axis in (0, 1)
    ]
    shifted = [
        _seen(images, sizes, stride, (i * dilation[0], j * dilation[1]))
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]
    by_channels = 1 < groups == weight.shape[0] == images.shape[1]
    products = _by_channels(shifted, weight) if by_channels else _by_groups(shifted, weight, groups)
    return products if bias is None else products + bias.view(-1, 1, 1)


def _seen(images: Tensor, sizes: Sequence[int], stride: Pair, first: Pair) -> Tensor:
    """What one place of the kernel sees: (count, channels, rows, columns)."""
    for axis in (0, 1):
        if sizes[axis] != images.shape[2 + axis]:
            end = first[axis] + stride[axis] * (sizes[axis] - 1) + 1
            images = torch.ops.aten.slice(images, 2 + axis, first[axis], end, stride[axis])
    return images


def _by_channels(shifted: Sequence[Tensor], weight: Tensor) -> Tensor:
    """The convolution with one kernel a channel."""
    places = weight.flatten(1).unbind(1)
    total = shifted[0] * places[0].view(-1, 1, 1)
    for seen, place in zip(shifted[1:], places[1:], strict=True):
        total = total + seen * place.view(-1, 1, 1)
    return total


def _by_groups(shifted: Sequence[Tensor], weight: Tensor, groups: int) -> Tensor:
    """The convolution as a product of matrices for each image and group."""
    count, _, rows, columns = shifted[0].shape
    seen = shifted[0] if len(shifted) == 1 else torch.stack(list(shifted), 2)
    inner = weight[0].numel()
    matrices = weight.reshape(groups, -1, inner)
    if count > 1:
        matrices = matrices.repeat(count, 1, 1)
    products = torch.bmm(matrices, seen.reshape(count * groups, inner, rows * columns))
    return products.view(count, -1, rows, columns)

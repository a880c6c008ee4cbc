"""The vectors that a layer multiplies its matrix with."""

import math
from typing import Any

from torch import Tensor, nn

# Kinds of layers that multiply their matrix by vectors of n values. An embedding looks rows up, a
# transposed convolution multiplies by the transposed matrix, and attention passes its inputs on.
KINDS = ("linear", "conv1d", "conv2d", "conv3d")
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


def input_vectors(module: nn.Module, x: Tensor, output: Tensor) -> Tensor:
    """The inputs of a layer as columns, one for each output position.

    With W the layer's (m, n) weight matrix and W_q the rows of group q, the rows of group q of the
    output are W_q @ columns[q], bias apart.

    Args:
        module: a Linear, Conv1d, Conv2d or Conv3d.
        x: its input: (..., n) for a Linear, (batch, channels, places...) for a convolution.
        output: what it returned. Its size tells how far a layer that pads by itself (timm's
            Conv2dSame) has padded.

    Returns:
        (groups, n, positions), positions being those of all images.
    """
    if not isinstance(module, Convolution):
        return x.reshape(1, -1, x.shape[-1]).mT
    # (batch, channels, places..., kernel...) -> (groups, channels a group, kernel, batch, places)
    dimensions = len(module.kernel_size)
    by_group = patches(module, x, output.shape[2:]).unflatten(1, (module.groups, -1))
    kernel = tuple(range(3 + dimensions, 3 + 2 * dimensions))
    places = tuple(range(3, 3 + dimensions))
    ordered = by_group.permute(1, 2, *kernel, 0, *places)
    n = math.prod(ordered.shape[1 : 2 + dimensions])
    return ordered.reshape(module.groups, n, -1)


def patches(module: Any, x: Tensor, places: tuple[int, ...]) -> Tensor:
    """The patches of a convolution's input, a view of it that is copied only to pad it.

    Args:
        module: a Conv1d or Conv2d.
        x: its input, (batch, channels, places...).
        places: the size of its output.

    Returns:
        (batch, channels, places..., kernel...).
    """
    view = _padded(module, x, places)
    for axis, (size, step, gap, count) in enumerate(
        zip(module.kernel_size, module.stride, module.dilation, places, strict=True)
    ):
        view = view.unfold(2 + axis, gap * (size - 1) + 1, step)[..., ::gap]
        view = view.narrow(2 + axis, 0, count)
    return view


def _padded(module: Any, x: Tensor, places: tuple[int, ...]) -> Tensor:
    """A convolution's input with the padding that makes `places` outputs of it.

    What exceeds the declared padding is split as "same" padding is: the larger half at the end.
    """
    sides: list[int] = []
    for axis, (count, size, step, gap) in enumerate(
        zip(places, module.kernel_size, module.stride, module.dilation, strict=True)
    ):
        declared = 0 if isinstance(module.padding, str) else module.padding[axis]
        span = (count - 1) * step + gap * (size - 1) + 1
        missing = max(0, span - x.shape[2 + axis] - 2 * declared)
        sides = [declared + missing // 2, declared + missing - missing // 2, *sides]
    if not any(sides):
        return x
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    return nn.functional.pad(x, sides, mode=mode)

"""What layers see of calibration images: rows of their inputs, drawn at random."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vqzoo.compression.compress import layer_seed
from vqzoo.data.batches import Batch
from vqzoo.plugin.selector import LayerInfo
from vqzoo.progress import Steps

ROWS = 4096
_BYTES = 1 << 30  # of all layers' rows together


@dataclass
class _Drawn:
    """Rows of one layer's inputs so far, and what the next are drawn with."""

    generator: torch.Generator
    rows: list[Tensor] = field(default_factory=list)


@torch.no_grad()
def layer_inputs(
    model: nn.Module,
    layers: Sequence[LayerInfo],
    batches: Iterable[Batch],
    images: int,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    progress: Steps | None = None,
) -> dict[str, Tensor]:
    """Rows of what layers multiply their matrices with.

    A Linear sees vectors of n values, a convolution patches of n: in/groups · kernel. From every
    batch alike rows are drawn at random, up to 4096 a layer, fewer where many wide layers would
    take more than 1 GiB together.

    Args:
        model: the dense network; it is run in eval mode.
        layers: those to watch.
        batches: preprocessed images.
        images: how many there are in all.
        seed: of the draws.
        device: where to run the network.
        progress: called with (images done, images).

    Returns:
        Layer -> (r, n) float32 on the CPU, finite. Layers that the network never called are
        missing.
    """
    device = device or torch.device("cpu")
    width = sum(layer.matrix_shape[1] for layer in layers)
    rows = max(64, min(ROWS, _BYTES // (4 * max(1, width))))
    drawn = {
        layer.name: _Drawn(torch.Generator().manual_seed(layer_seed(seed, layer.name)))
        for layer in layers
    }
    share = [0.0]  # of all images, in the batch at hand

    def watch(layer: LayerInfo, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if not arguments:  # called by keyword
            return
        count = math.ceil(rows * share[0])
        own = drawn[layer.name]
        own.rows.append(_draw(module, arguments[0].detach(), count, own.generator).float().cpu())

    training, where = model.training, next(model.parameters()).device
    hooks = [
        model.get_submodule(layer.name).register_forward_pre_hook(partial(watch, layer))
        for layer in layers
    ]
    try:
        model.to(device).eval()
        done = 0
        for batch in batches:
            share[0] = len(batch.images) / images
            model(batch.images.to(device))
            done += len(batch.images)
            if progress is not None:
                progress(done, images)
    finally:
        for hook in hooks:
            hook.remove()
        model.to(where).train(training)
    found = {name: _finite(torch.cat(own.rows)) for name, own in drawn.items() if own.rows}
    return {name: _evenly(inputs, rows) for name, inputs in found.items() if len(inputs)}


def _draw(module: nn.Module, x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count, n) rows of a layer's inputs."""
    if not isinstance(module, nn.Conv1d | nn.Conv2d):
        flat = x.reshape(-1, x.shape[-1])
        return flat[torch.randint(len(flat), (count,), generator=generator).to(x.device)]
    padding = module.padding if not isinstance(module.padding, str) else 0
    patches = _patches(x, module.kernel_size, module.stride, module.dilation, padding)
    places = patches.shape[2 : 2 + len(module.kernel_size)]
    image = torch.randint(len(x), (count,), generator=generator)
    place = [torch.randint(size, (count,), generator=generator) for size in places]
    group = torch.randint(module.groups, (count,), generator=generator)
    by_group = patches.unflatten(1, (module.groups, -1)).movedim(2, -1)
    chosen = by_group[(image, group, *place)]  # (count, kernel, channels of the group)
    return chosen.movedim(-1, 1).reshape(count, -1)


def _patches(
    x: Tensor,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: int | tuple[int, ...],
) -> Tensor:
    """(batch, channels, places..., kernel...), a view: nothing is copied but for padding.

    Inputs smaller than a kernel are padded to one patch: layers that pad themselves take them.
    """
    padded = (padding,) * len(kernel) if isinstance(padding, int) else padding
    sides: list[int] = []
    for length, size, gap, side in zip(x.shape[2:], kernel, dilation, padded, strict=True):
        lacking = max(0, gap * (size - 1) + 1 - length - 2 * side)
        sides = [side + lacking // 2, side + lacking - lacking // 2, *sides]
    patches = nn.functional.pad(x, sides)
    for axis, (size, step, gap) in enumerate(zip(kernel, stride, dilation, strict=True)):
        patches = patches.unfold(2 + axis, gap * (size - 1) + 1, step)[..., ::gap]
    return patches


def _finite(inputs: Tensor) -> Tensor:
    """The rows without NaN and infinity."""
    return inputs[inputs.isfinite().all(1)]


def _evenly(inputs: Tensor, rows: int) -> Tensor:
    """At most `rows` of the rows."""
    if len(inputs) <= rows:
        return inputs
    return inputs[torch.linspace(0, len(inputs) - 1, rows).long()]

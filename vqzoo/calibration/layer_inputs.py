"""Calibration inputs: rows of what layers multiply their matrices with, drawn at random."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vqzoo.compression.plugin_calls import layer_seed
from vqzoo.data.batches import Batch, Data
from vqzoo.plugin.selector import LayerInfo
from vqzoo.progress import Steps, Watcher

ROWS = 4096
# Kinds of layers that multiply their matrix by vectors of n values. An embedding looks rows up, a
# transposed convolution multiplies by the transposed matrix, and attention passes its inputs on.
KINDS = ("linear", "conv1d", "conv2d", "conv3d")
MEMORY = 1 << 30  # bytes of all layers' rows together


@dataclass
class _Sample:
    """The rows of one layer's inputs so far, and the generator that draws the next."""

    generator: torch.Generator
    rows: list[Tensor] = field(default_factory=list)


def calibration_inputs(
    model: nn.Module,
    layers: Sequence[LayerInfo],
    data: Data,
    *,
    seed: int,
    device: torch.device,
    watcher: Watcher,
) -> dict[str, Tensor]:
    """`layer_inputs` on calibration data of known length, reported to a watcher."""
    assert data.images is not None
    with watcher.images(f"calibrating on {data.name}") as steps:
        return layer_inputs(
            model, layers, data, data.images, seed=seed, device=device, progress=steps
        )


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
    """Draw rows of what layers multiply their matrices with.

    A Linear multiplies vectors of n values, a convolution patches of n = in/groups · kernel values;
    layers of other kinds are left out.
    Each batch contributes rows in proportion to its images. There are up to 4096 rows a layer,
    fewer where many wide layers would take more than 1 GiB together.

    Args:
        model: the dense network; it is run in eval mode and left as it was.
        layers: the layers to draw inputs of.
        batches: preprocessed images.
        images: the number of images in all batches together.
        seed: the run's.
        device: where to run the network; the CPU unless given.
        progress: called with (images done, images).

    Returns:
        Layer -> (r, n) float32 on the CPU, finite. Layers that the network never calls are missing.
    """
    layers = [layer for layer in layers if layer.kind in KINDS]
    device = device or torch.device("cpu")
    width = sum(layer.matrix_shape[1] for layer in layers)
    rows = max(64, min(ROWS, MEMORY // (4 * max(1, width))))
    samples = {
        layer.name: _Sample(torch.Generator().manual_seed(layer_seed(seed, layer.name)))
        for layer in layers
    }
    share = [0.0]  # the current batch's, of all images

    def draw(layer: LayerInfo, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if not arguments:  # called by keyword
            return
        count = math.ceil(rows * share[0])
        sample = samples[layer.name]
        drawn = _draw_rows(module, arguments[0].detach(), count, sample.generator)
        sample.rows.append(drawn.float().cpu())

    training, home = model.training, next(model.parameters()).device
    hooks = [
        model.get_submodule(layer.name).register_forward_pre_hook(partial(draw, layer))
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
        model.to(home).train(training)
    finite = {name: _finite_rows(torch.cat(s.rows)) for name, s in samples.items() if s.rows}
    return {name: _evenly_spaced(inputs, rows) for name, inputs in finite.items() if len(inputs)}


def _draw_rows(module: nn.Module, x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count, n) rows of a layer's inputs."""
    if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        flat = x.reshape(-1, x.shape[-1])
        return flat[torch.randint(len(flat), (count,), generator=generator).to(x.device)]
    padding = module.padding if not isinstance(module.padding, str) else 0
    patches = _patches(x, module.kernel_size, module.stride, module.dilation, padding)
    positions = patches.shape[2 : 2 + len(module.kernel_size)]
    image = torch.randint(len(x), (count,), generator=generator)
    position = [torch.randint(size, (count,), generator=generator) for size in positions]
    group = torch.randint(module.groups, (count,), generator=generator)
    by_group = patches.unflatten(1, (module.groups, -1)).movedim(2, -1)
    chosen = by_group[(image, group, *position)]  # (count, kernel, channels of the group)
    return chosen.movedim(-1, 1).reshape(count, -1)


def _patches(
    x: Tensor,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: int | tuple[int, ...],
) -> Tensor:
    """The patches of a convolution's input: (batch, channels, positions..., kernel...).

    They are a view of the input, which is copied only to pad it. An input smaller than the kernel
    is padded to one patch, for convolutions that pad their input themselves ("same").
    """
    paddings = (padding,) * len(kernel) if isinstance(padding, int) else padding
    sides: list[int] = []
    for length, size, gap, side in zip(x.shape[2:], kernel, dilation, paddings, strict=True):
        missing = max(0, gap * (size - 1) + 1 - length - 2 * side)
        sides = [side + missing // 2, side + missing - missing // 2, *sides]
    patches = nn.functional.pad(x, sides)
    for axis, (size, step, gap) in enumerate(zip(kernel, stride, dilation, strict=True)):
        patches = patches.unfold(2 + axis, gap * (size - 1) + 1, step)[..., ::gap]
    return patches


def _finite_rows(inputs: Tensor) -> Tensor:
    """The rows without NaN or infinity."""
    return inputs[inputs.isfinite().all(1)]


def _evenly_spaced(inputs: Tensor, rows: int) -> Tensor:
    """At most `rows` of the rows, evenly spaced."""
    if len(inputs) <= rows:
        return inputs
    return inputs[torch.linspace(0, len(inputs) - 1, rows).long()]

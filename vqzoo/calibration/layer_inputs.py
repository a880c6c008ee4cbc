"""Calibration inputs: rows of what layers multiply their matrices with, drawn at random."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vqzoo.calibration.input_vectors import KINDS, Convolution, patches
from vqzoo.calibration.passes import in_eval_mode
from vqzoo.compression.plugin_calls import layer_seed
from vqzoo.data.batches import Batch
from vqzoo.plugin.selector import LayerInfo
from vqzoo.progress import Steps

ROWS = 4096
MEMORY = 1 << 30  # bytes of all layers' rows together


@dataclass
class _Sample:
    """The rows of one layer's inputs so far, and the generator that draws the next."""

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

    def draw(layer: LayerInfo, module: nn.Module, arguments: tuple[Any, ...], out: Tensor) -> None:
        if not arguments:  # called by keyword
            return
        count = math.ceil(rows * share[0])
        sample = samples[layer.name]
        drawn = _draw_rows(module, arguments[0], out.shape[2:], count, sample.generator)
        sample.rows.append(drawn.float().cpu())

    hooks = [
        model.get_submodule(layer.name).register_forward_hook(partial(draw, layer))
        for layer in layers
    ]
    try:
        with in_eval_mode(model, device):
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
    finite = {name: _finite_rows(torch.cat(s.rows)) for name, s in samples.items() if s.rows}
    return {name: _evenly_spaced(inputs, rows) for name, inputs in finite.items() if len(inputs)}


def _draw_rows(
    module: nn.Module, x: Tensor, places: tuple[int, ...], count: int, generator: torch.Generator
) -> Tensor:
    """(count, n) rows of a layer's inputs; `places` is the size of a convolution's output."""
    if not isinstance(module, Convolution):
        flat = x.reshape(-1, x.shape[-1])
        return flat[torch.randint(len(flat), (count,), generator=generator).to(x.device)]
    image = torch.randint(len(x), (count,), generator=generator)
    position = [torch.randint(size, (count,), generator=generator) for size in places]
    group = torch.randint(module.groups, (count,), generator=generator)
    by_group = patches(module, x, places).unflatten(1, (module.groups, -1)).movedim(2, -1)
    chosen = by_group[(image, group, *position)]  # (count, kernel, channels of the group)
    return chosen.movedim(-1, 1).reshape(count, -1)


def _finite_rows(inputs: Tensor) -> Tensor:
    """The rows without NaN or infinity."""
    return inputs[inputs.isfinite().all(1)]


def _evenly_spaced(inputs: Tensor, rows: int) -> Tensor:
    """At most `rows` of the rows, evenly spaced."""
    if len(inputs) <= rows:
        return inputs
    return inputs[torch.linspace(0, len(inputs) - 1, rows).long()]

"""What reaches a block of the compressed network, and what the dense network's block returns."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vqzoo.calibration.passes import EndPass
from vqzoo.evaluation.answers import in_precision_of, logits_of

_FLOOR = 0.3  # of the mean weight, added to each: few images are a noisy guide


class Pairs(NamedTuple):
    """Inputs of a block in the compressed network, and outputs of the dense one's.

    Attributes:
        inputs: (images, ...) float16.
        outputs: (images, ...) float16.
    """

    inputs: Tensor
    outputs: Tensor


@torch.no_grad()
def collect_pairs(
    student: nn.Module, dense: nn.Module, unit: str, batches: Iterable[Tensor], limit: int
) -> Iterator[Pairs]:
    """Cache what a block is to learn from, as many images at a time as memory may hold.

    Args:
        student: the compressed network, in eval mode.
        dense: the dense network, likewise.
        unit: path of the block.
        batches: images, on the networks' device.
        limit: bytes of inputs and outputs; one batch is cached even if it takes more.
    """
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    held = 0
    for images in batches:
        inputs.append(_seen(student, unit, images, of_input=True).half())
        outputs.append(_seen(dense, unit, images, of_input=False).half())
        size = inputs[-1].nbytes + outputs[-1].nbytes
        held += size
        if held + size > limit:
            yield Pairs(torch.cat(inputs), torch.cat(outputs))
            inputs, outputs, held = [], [], 0
    if inputs:
        yield Pairs(torch.cat(inputs), torch.cat(outputs))


def output_weights(
    dense: nn.Module,
    units: Sequence[str],
    views: Sequence[Tensor],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """What a squared error of each value that a block returns does to the answers.

    With z the centred logits and v ~ N(0, I), g = E[(∂(vᵀz)/∂y)²] makes ½ Σ g (Δy)² about ½ |Δz|²,
    in squared logits an image: the metric that calibration weighs errors by, here for each value of
    an output y. It is kept from extremes: 0.3 of the mean is added.

    Args:
        dense: the dense network, in eval mode, without gradients of its parameters.
        units: paths of the blocks.
        views: batches of images, on the network's device.
        generator: of v, on the CPU.

    Returns:
        Path -> weights of the shape of one image's output; 1 where no gradient comes back, or where
        it is not finite.
    """
    sums: dict[str, Tensor] = {}
    shapes: dict[str, torch.Size] = {}

    def watch(name: str, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        shapes[name] = output.shape[1:]
        if output.requires_grad:
            output.register_hook(partial(add, name))

    def add(name: str, gradient: Tensor) -> None:
        squares = gradient.float().square().sum(0)
        sums[name] = squares if name not in sums else sums[name] + squares

    with _hooked(dense, {unit: partial(watch, unit) for unit in units}):
        for images in views:
            logits = logits_of(dense, images.detach().requires_grad_())
            v = torch.randn(logits.shape, generator=generator).to(logits)
            (v - v.mean(1, keepdim=True)).mul(logits).sum().backward()
    count = sum(map(len, views))
    weights: dict[str, Tensor] = {}
    for unit, shape in shapes.items():
        weight = sums.get(unit, torch.zeros(shape, device=views[0].device)) / count
        mean = float(weight.double().mean())
        usable = 0 < mean < math.inf
        weights[unit] = weight + _FLOOR * mean if usable else torch.ones_like(weight)
    return weights


def _seen(network: nn.Module, unit: str, images: Tensor, *, of_input: bool) -> Tensor:
    """What a block takes or returns for some images."""
    seen: list[Tensor] = []

    def stop(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        seen.append(output)
        raise EndPass

    def stop_before(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        seen.append(arguments[0].clone())
        raise EndPass

    module = network.get_submodule(unit)
    handle = (
        module.register_forward_pre_hook(stop_before)
        if of_input
        else module.register_forward_hook(stop)
    )
    try:
        with suppress(EndPass):
            network(in_precision_of(network, images))
    finally:
        handle.remove()
    return seen[0]


@contextmanager
def _hooked(network: nn.Module, hooks: dict[str, Any]) -> Iterator[None]:
    handles = [network.get_submodule(n).register_forward_hook(hook) for n, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

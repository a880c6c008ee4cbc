"""Layers corrected one after the other, so that means over some images become what they were.

Nagel, van Baalen, Blankevoort, Welling 2019, arXiv 1906.04721, section 4.2: the mean output of a
layer moves by E[W x] - E[Ŵ x̂], x̂ being what reaches it behind compressed layers, and its bias takes
that back. Statistics of batch norms move likewise.
"""

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from vqzoo.calibration.in_step import Call, OutOfStep, run_in_step
from vqzoo.calibration.moments import Moments
from vqzoo.calibration.norms import has_statistics, move_statistics
from vqzoo.calibration.passes import EndPass, Passes

MEMORY = 2 << 30  # bytes of images and of one layer's inputs and outputs, for all images together


def with_corrected_layers(
    network: nn.Module,
    dense: Moments,
    layers: Sequence[str],
    passes: Passes,
    memory: int = MEMORY,
) -> nn.Module:
    """A copy of a network whose layers return the means that they returned in the dense network.

    Biases, and means and variances of batch norms, are corrected in the order of the forward pass,
    each behind the corrected ones. One pass of all images in step does that. If they do not fit
    into memory so, or the network takes its layers in another order, the images go through the
    network again for each layer, as far as the layer; the result is the same.

    Args:
        network: the compressed network, in eval mode; it is not changed.
        dense: what the layers saw in the dense network.
        layers: layers with biases, and batch norms, in the order of the forward pass.
        passes: runs networks on the images; its plan has 1 pass for this.
        memory: bytes that images and one layer's inputs and outputs may take.
    """
    if dense.largest + passes.image_bytes <= memory:
        try:
            return _corrected_in_step(network, dense, layers, passes)
        except OutOfStep:
            pass
    passes.planned += len(layers) - 1
    return _corrected_one_by_one(network, dense, layers, passes)


def _corrected_in_step(
    network: nn.Module, dense: Moments, layers: Sequence[str], passes: Passes
) -> nn.Module:
    changed = copy.deepcopy(network)
    share = passes.images // (len(layers) + 1)

    def correct(name: str, calls: list[Call]) -> None:
        layer, now = changed.get_submodule(name), Moments()
        for call in calls:
            now.add(name, layer, call.arguments, call.output)
        _correct(layer, name, dense, now)
        passes.advance(share)

    run_in_step(changed, layers, passes.all_images(), correct)
    passes.advance(passes.images - share * len(layers))
    return changed


def _corrected_one_by_one(
    network: nn.Module, dense: Moments, layers: Sequence[str], passes: Passes
) -> nn.Module:
    changed = copy.deepcopy(network)
    for name in layers:
        now = _moments(changed, name, passes)
        _correct(changed.get_submodule(name), name, dense, now)
    return changed


def _moments(network: nn.Module, name: str, passes: Passes) -> Moments:
    """A layer's moments; passes end behind the layer."""
    moments = Moments()

    def add(layer: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        moments.add(name, layer, arguments, output)
        raise EndPass

    hook = network.get_submodule(name).register_forward_hook(add)
    for _ in passes.run(network):
        pass
    hook.remove()
    return moments


def _correct(layer: nn.Module, name: str, dense: Moments, now: Moments) -> None:
    if has_statistics(layer):
        move_statistics(
            layer,
            (dense.mean(name), dense.variance(name)),
            (now.mean(name), now.variance(name)),
        )
        return
    bias = bias_of(layer)
    assert bias is not None
    bias += (dense.mean(name) - now.mean(name)).to(bias)


def bias_of(layer: nn.Module) -> Tensor | None:
    """A layer's bias; None where it has none."""
    bias = getattr(layer, "bias", None)
    return bias if isinstance(bias, Tensor) else None

"""Correction of biases: the mean output of each compressed layer becomes what it was.

Nagel, van Baalen, Blankevoort, Welling 2019, arXiv 1906.04721, section 4.2.
"""

import copy
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from vqzoo.calibration.in_step import OutOfStep, run_in_step
from vqzoo.calibration.norms import has_statistics
from vqzoo.calibration.passes import EndPass, Passes

MEMORY = 2 << 30  # bytes of images and of one layer's inputs and outputs, for all images together


class OutputMeans:
    """Means over images and positions of what layers return, in float64.

    Attributes:
        largest: bytes of the largest inputs and outputs of one layer, for all images together.
    """

    def __init__(self) -> None:
        self.largest = 0
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._bytes: dict[str, int] = {}
        self._outputs: dict[str, weakref.ref[Tensor]] = {}
        self._feeding: set[str] = set()

    @contextmanager
    def of(self, network: nn.Module, layers: Iterable[str]) -> Iterator[None]:
        """Within the block, passes of a whole network add to the means of its layers."""
        hooks = [
            network.get_submodule(name).register_forward_hook(partial(self._layer_called, name))
            for name in layers
        ]
        norms = [module for module in network.modules() if has_statistics(module)]
        hooks += [norm.register_forward_pre_hook(self._norm_called) for norm in norms]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def add(self, name: str, layer: nn.Module, output: Tensor) -> None:
        """Add one output of a layer."""
        channel = 1 if isinstance(layer, _ConvNd) else -1
        values = output.movedim(channel, 0).flatten(1).double()
        total = self._sums.get(name, values.new_zeros(len(values)))
        self._sums[name] = total + values.sum(1)
        self._counts[name] = self._counts.get(name, 0) + values.shape[1]

    def means(self) -> dict[str, Tensor]:
        """Layer -> (channels,) float64, in the order of the forward pass.

        Layers whose output goes straight into a batch norm are left out: it cancels their mean.
        """
        return {
            name: total / self._counts[name]
            for name, total in self._sums.items()
            if name not in self._feeding
        }

    def _layer_called(
        self, name: str, layer: nn.Module, arguments: tuple[Any, ...], output: Tensor
    ) -> None:
        self.add(name, layer, output)
        self._outputs[name] = weakref.ref(output)
        size = sum(x.nbytes for x in (*arguments, output) if isinstance(x, Tensor))
        self._bytes[name] = self._bytes.get(name, 0) + size
        self.largest = max(self.largest, self._bytes[name])

    def _norm_called(self, norm: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._feeding.update(
            name for name, output in self._outputs.items() if output() is arguments[0]
        )


def with_corrected_biases(
    network: nn.Module, dense: OutputMeans, passes: Passes, memory: int = MEMORY
) -> tuple[nn.Module, list[Any]]:
    """A copy of a network whose layers' mean outputs are those of the dense network.

    Biases are corrected one after the other, in the order of the forward pass, each behind the
    corrected ones. One pass of all images in step does that. If they do not fit into memory so, or
    the network takes its layers in another order, the images go through the network again for each
    bias, as far as its layer; the result is the same.

    Args:
        network: the compressed network, in eval mode; it is not changed.
        dense: the dense network's mean outputs.
        passes: runs networks on the images; its plan has 1 pass for this.
        memory: bytes that images and one layer's inputs and outputs may take.

    Returns:
        The copy, and its answers, batch by batch.
    """
    targets = dense.means()
    if dense.largest + passes.image_bytes <= memory:
        try:
            return _corrected_in_step(network, targets, passes)
        except OutOfStep:
            pass
    passes.planned += len(targets)
    return _corrected_one_by_one(network, targets, passes)


def _corrected_in_step(
    network: nn.Module, targets: dict[str, Tensor], passes: Passes
) -> tuple[nn.Module, list[Any]]:
    changed = copy.deepcopy(network)
    share = passes.images // (len(targets) + 1)

    def correct(name: str, outputs: list[Tensor]) -> None:
        layer, means = changed.get_submodule(name), OutputMeans()
        for output in outputs:
            means.add(name, layer, output)
        _shift_bias(layer, targets[name] - means.means()[name])
        passes.advance(share)

    answers = run_in_step(changed, list(targets), passes.all_images(), correct)
    passes.advance(passes.images - share * len(targets))
    return changed, answers


def _corrected_one_by_one(
    network: nn.Module, targets: dict[str, Tensor], passes: Passes
) -> tuple[nn.Module, list[Any]]:
    changed = copy.deepcopy(network)
    for name, target in targets.items():
        layer = changed.get_submodule(name)
        _shift_bias(layer, target - _mean_output(changed, name, passes))
    return changed, list(passes.run(changed))


def _mean_output(network: nn.Module, name: str, passes: Passes) -> Tensor:
    """A layer's mean output, (channels,) float64; passes end behind the layer."""
    means = OutputMeans()

    def add(layer: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        means.add(name, layer, output)
        raise EndPass

    hook = network.get_submodule(name).register_forward_hook(add)
    for _ in passes.run(network):
        pass
    hook.remove()
    return means.means()[name]


def _shift_bias(layer: nn.Module, shift: Tensor) -> None:
    bias = bias_of(layer)
    assert bias is not None
    bias += shift.to(bias)


def bias_of(layer: nn.Module) -> Tensor | None:
    """A layer's bias; None where it has none."""
    bias = getattr(layer, "bias", None)
    return bias if isinstance(bias, Tensor) else None

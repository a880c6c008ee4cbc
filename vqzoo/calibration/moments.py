"""Means and variances of what layers return and of what reaches batch norms."""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from vqzoo.calibration.norms import has_statistics


@dataclass
class _Sums:
    """Sums over images and positions, (channels,) float64."""

    count: int
    first: Tensor
    second: Tensor


class Moments:
    """Means and variances over images and positions, in float64: of the outputs of layers, and of
    the inputs of batch norms.

    Attributes:
        largest: bytes of the largest inputs and outputs of one layer, for all images together.
    """

    def __init__(self) -> None:
        self.largest = 0
        self._sums: dict[str, _Sums] = {}
        self._bytes: dict[str, int] = {}
        self._outputs: dict[str, weakref.ref[Tensor]] = {}
        self._feeding: set[str] = set()

    @contextmanager
    def of(self, network: nn.Module, layers: Iterable[str]) -> Iterator[None]:
        """Within the block, passes of a whole network add to the moments of its layers."""
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

    def add(self, name: str, layer: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        """Add one call of a layer."""
        norm = has_statistics(layer)
        values = arguments[0] if norm else output
        channel = 1 if norm or isinstance(layer, _ConvNd) else -1
        by_channel = values.movedim(channel, 0).flatten(1).double()
        first, second = by_channel.sum(1), by_channel.square().sum(1)
        sums = self._sums.setdefault(
            name, _Sums(0, torch.zeros_like(first), torch.zeros_like(second))
        )
        sums.count += by_channel.shape[1]
        sums.first += first
        sums.second += second

    def names(self) -> list[str]:
        """The layers in the order of the forward pass.

        Layers whose output goes straight into a batch norm are left out: it cancels their mean.
        """
        return [name for name in self._sums if name not in self._feeding]

    def mean(self, name: str) -> Tensor:
        """(channels,) float64."""
        sums = self._sums[name]
        return sums.first / sums.count

    def variance(self, name: str) -> Tensor:
        """(channels,) float64."""
        sums = self._sums[name]
        return (sums.second / sums.count - self.mean(name).square()).clamp(min=0)

    def _layer_called(
        self, name: str, layer: nn.Module, arguments: tuple[Any, ...], output: Tensor
    ) -> None:
        self.add(name, layer, arguments, output)
        self._outputs[name] = weakref.ref(output)
        size = sum(x.nbytes for x in (*arguments, output) if isinstance(x, Tensor))
        self._bytes[name] = self._bytes.get(name, 0) + size
        self.largest = max(self.largest, self._bytes[name])

    def _norm_called(self, norm: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._feeding.update(
            name for name, output in self._outputs.items() if output() is arguments[0]
        )

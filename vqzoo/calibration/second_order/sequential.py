"""H behind the layers already compressed: what a layer sees in the network that will be stored.

Error feedback minimises the error of a layer's output on its inputs. Behind compressed layers those
inputs are other ones, and GPTQ (Frantar et al. 2022, arXiv 2210.17323, section 3.3) takes them so.
"""

import copy
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vqzoo.calibration.corrections import MEMORY
from vqzoo.calibration.in_step import Call, OutOfStep, in_step
from vqzoo.calibration.passes import EndPass
from vqzoo.calibration.second_order.statistics import LayerSums, block_width, images_at_once
from vqzoo.compression.plugin_calls import InSequence, Statistics
from vqzoo.compression.view import is_parameter, weight_key
from vqzoo.data.batches import Data
from vqzoo.plugin.second_order import SecondOrder
from vqzoo.plugin.selector import LayerInfo

Matrix = Callable[[], Tensor]  # decodes a layer


class SequentialStatistics(InSequence):
    """Statistics of layers that are compressed one after the other, in the order of a forward pass.

    H of a layer is gathered when the layer is asked for, behind the matrices that `put` gave the
    layers before it; everything else is that of the dense network. A layer is asked for once, and
    layers in `order`.

    All images pass the network in step, once, if no layer is called twice, and the images and the
    inputs and outputs of the largest layer take at most 2 GiB for all images together. Otherwise
    all images go through the network again for each layer, about sixteen of 3 x 224 x 224 at a
    time; H is the same. Beside that, memory holds a copy of the network and the H of one layer.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[LayerInfo],
        dense: Mapping[str, Statistics],
        data: Data,
        finished: Mapping[str, Matrix],
        device: torch.device,
        progress: Callable[[int, int], None],
        memory: int = MEMORY,
    ) -> None:
        """
        Args:
            model: the dense network; it is not changed.
            layers: all layers to compress.
            dense: what calibration says about them in the dense network. Layers with second-order
                statistics get another H.
            data: the images that it says so on.
            finished: layers that are compressed already, and what decodes them.
            device: where to run the network.
            progress: called with (images done, images) where a layer has a pass of its own.
            memory: bytes that images and one layer's inputs and outputs may take.
        """
        self._network = copy.deepcopy(model).to(device).eval().requires_grad_(False)
        self._layers = {layer.name: layer for layer in layers}
        self._dense = dense
        self._data = data
        self._device = device
        self._progress = progress
        self._put: dict[str, Matrix] = dict(finished)
        trace = _trace(self._network, layers, next(self._chunks())[:1])
        unreached = [layer.name for layer in layers if layer.name not in trace.calls]
        self.order = [*trace.calls, *unreached]
        self._calls = trace.calls
        self._stops = [
            name
            for name in self.order
            if name in dense and dense[name].second_order is not None and name not in finished
        ]
        images = sum(chunk.nbytes for chunk in self._chunks())
        fits = trace.largest * (data.images or 0) + images <= memory
        once = all(self._calls.get(name) == 1 for name in self._stops)
        self._in_step: Generator[tuple[str, list[Call]], None, list[Any]] | None = None
        if fits and once:
            self._in_step = in_step(self._network, self._stops, list(self._chunks()))

    def __iter__(self) -> Iterator[str]:
        return iter(self._dense)

    def __len__(self) -> int:
        return len(self._dense)

    def __contains__(self, name: object) -> bool:
        return name in self._dense

    def __getitem__(self, name: str) -> Statistics:
        known = self._dense[name]
        if name not in self._stops or known.second_order is None:
            return known
        self._compress_before(name)
        sums = self._observed(name)
        hessian = sums.hessian() if sums.positions else ()
        if not hessian or not all(bool(block.isfinite().all()) for block in hessian):
            raise KeyError(name)  # the compressed layers have broken the network
        return Statistics(second_order=SecondOrder(hessian, known.second_order.row_weights))

    def put(self, name: str, matrix: Tensor) -> None:
        """Take the decoded matrix of a layer, (m, n): what layers behind it see follows from it."""
        self._put[name] = lambda: matrix

    def close(self) -> None:
        """End the pass in step."""
        if self._in_step is not None:
            self._in_step.close()

    def _chunks(self) -> Iterator[Tensor]:
        for batch in self._data:
            for chunk in batch.images.split(images_at_once(batch.images)):
                yield chunk.to(self._device)

    def _compress_before(self, name: str) -> None:
        """Give the layers before this one the matrices that they have."""
        for earlier in self.order[: self.order.index(name)]:
            if (matrix := self._put.pop(earlier, None)) is not None:
                weight = self._network.get_parameter(weight_key(earlier))
                weight.copy_(matrix().reshape(weight.shape))

    def _observed(self, name: str) -> LayerSums:
        """What a layer sees now, of all images."""
        layer = self._layers[name]
        sums = LayerSums(layer, block_width([layer]), self._device)
        module = self._network.get_submodule(name)
        if self._in_step is not None:
            try:
                for stop, calls in self._in_step:
                    if stop == name:
                        for call in calls:
                            sums.observe(module, call.arguments[0], call.output)
                        return sums
            except OutOfStep:  # the order depends on the images
                self._in_step = None
        last = self._calls.get(name) == 1

        def observe(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
            if arguments:
                sums.observe(module, arguments[0], output)
            if last:
                raise EndPass

        hook = module.register_forward_hook(observe)
        done, total = 0, self._data.images or 0
        try:
            for chunk in self._chunks():
                with torch.no_grad(), suppress(EndPass):
                    self._network(chunk)
                done += len(chunk)
                self._progress(done, total)
        finally:
            hook.remove()
        return sums


@dataclass
class _Trace:
    """One image's pass through a network.

    Attributes:
        calls: layer -> how often it is called, in the order of first calls.
        largest: bytes of the inputs and outputs of the largest layer.
    """

    calls: dict[str, int] = field(default_factory=dict)
    largest: int = 0


def _trace(network: nn.Module, layers: Sequence[LayerInfo], image: Tensor) -> _Trace:
    trace = _Trace()

    def begin(name: str, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        trace.calls[name] = trace.calls.get(name, 0) + 1

    def end(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        size = sum(x.nbytes for x in (*arguments, output) if isinstance(x, Tensor))
        trace.largest = max(trace.largest, size)

    hooks = []
    for layer in layers:
        # The weight of a layer with a parameter's name belongs to the module above it.
        owner = layer.name.rpartition(".")[0] if is_parameter(layer.name) else layer.name
        module = network.get_submodule(owner)
        hooks.append(module.register_forward_pre_hook(partial(begin, layer.name)))
        hooks.append(module.register_forward_hook(end))
    try:
        with torch.no_grad():
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    return trace

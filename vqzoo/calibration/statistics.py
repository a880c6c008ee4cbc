"""What a calibrated run gathers for each layer: what the layer's method declares that it uses."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from vqzoo.calibration.input_vectors import KINDS
from vqzoo.calibration.kept_inputs import kept_inputs
from vqzoo.calibration.second_order.kept import kept_second_order
from vqzoo.calibration.second_order.sequential import Matrix, SequentialStatistics
from vqzoo.compression.plugin_calls import Statistics
from vqzoo.compression.selection import LayerPlan
from vqzoo.data.batches import Data
from vqzoo.errors import UsageError
from vqzoo.plugin.manager import Plugins
from vqzoo.plugin.selector import LayerInfo
from vqzoo.progress import Watcher


def layer_statistics(
    model: nn.Module,
    plans: Sequence[LayerPlan],
    plugins: Plugins,
    data: Data,
    *,
    seed: int,
    device: torch.device,
    watcher: Watcher,
    finished: Collection[str] = (),
    second_order_of_all: bool = False,
) -> dict[str, Statistics]:
    """Gather second-order statistics for methods that declare them, and inputs for all others.

    Args:
        model: the dense network.
        plans: the layers and the choices made for them.
        plugins: the installed methods.
        data: calibration images of known length.
        seed: the run's.
        device: where to run the network.
        watcher: receives progress.
        finished: layers that need no statistics any more. Those of the others do not depend on it.
        second_order_of_all: gather second-order statistics of all layers, whatever their methods
            declare.

    Returns:
        Layer -> what the images say about it. Layers that the network never called, and kinds of
        layers that multiply no vectors of inputs, are missing;
        those behind transforms have empty statistics.
    """
    assert data.images is not None
    by_second_order: list[LayerInfo] = []
    by_inputs: list[LayerInfo] = []
    statistics: dict[str, Statistics] = {}
    for plan in plans:
        transformed = bool(plan.choice.transforms)
        if transformed:  # nothing about the layer's own columns reaches through them
            statistics[plan.layer.name] = Statistics()
        if plan.layer.kind not in KINDS:
            continue
        methods = [plugins.quantizers.get(choice.method).item for choice in plan.choice.each()]
        if second_order_of_all or (not transformed and any(item.second_order for item in methods)):
            by_second_order.append(plan.layer)
        others = [item for item in methods if not item.second_order]
        # Of one method, inputs are gathered even if it does not declare that it uses them.
        if not transformed and any(item.calibrated or len(methods) == 1 for item in others):
            by_inputs.append(plan.layer)
    if any(layer.name not in finished for layer in by_second_order):
        gathered = kept_second_order(
            model, by_second_order, data, seed=seed, device=device, watcher=watcher
        )
        statistics |= {name: Statistics(second_order=layer) for name, layer in gathered.items()}
    if any(layer.name not in finished for layer in by_inputs):
        rows = kept_inputs(model, by_inputs, data, seed=seed, device=device, watcher=watcher)
        for name, inputs in rows.items():
            statistics[name] = replace(statistics.get(name, Statistics()), inputs=inputs)
    return statistics


def sequential_statistics(
    model: nn.Module,
    plans: Sequence[LayerPlan],
    plugins: Plugins,
    data: Data,
    *,
    seed: int,
    device: torch.device,
    watcher: Watcher,
    finished: Mapping[str, Matrix],
) -> Mapping[str, Statistics]:
    """`layer_statistics`, with H of each layer gathered behind the layers compressed before it.

    The row weights g, and the inputs of methods that do not declare second-order statistics, are
    those of the dense network.

    Args:
        finished: layers that are compressed already, and what decodes them.
    """
    dense = layer_statistics(
        model,
        plans,
        plugins,
        data,
        seed=seed,
        device=device,
        watcher=watcher,
        finished=finished,
    )
    if all(plan.layer.name in finished for plan in plans):
        return dense
    layers = [plan.layer for plan in plans]
    return SequentialStatistics(
        model, layers, dense, data, finished, device=device, progress=watcher.layer_step
    )


def check_sequential(plans: Sequence[LayerPlan], plugins: Plugins, option: str) -> None:
    """Refuse statistics behind compressed layers where nothing would use them.

    Args:
        plans: the layers and the choices made for them.
        plugins: the installed methods.
        option: how the user asks for them, for the error message.

    Raises:
        UsageError: says what to do.
    """
    methods = dict.fromkeys(
        choice.method
        for plan in plans
        if not plan.choice.transforms
        for choice in plan.choice.each()
    )
    if not any(plugins.quantizers.get(method).item.second_order for method in methods):
        names = ", ".join(methods) or "what stands behind a transform"
        raise UsageError(f"{option} changes nothing for {names}: leave it out")

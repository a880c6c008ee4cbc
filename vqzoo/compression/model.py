"""Compress the planned layers of a network, one after the other.

`vqzoo.compress` and runs use the same loop: they differ in what they keep of a compressed layer.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from vqzoo.compression.layer import CompressedLayer, compress_layer
from vqzoo.compression.plugin_calls import InSequence, Statistics
from vqzoo.compression.selection import LayerPlan
from vqzoo.errors import NothingCompressed, PluginError
from vqzoo.plugin.manager import Plugins
from vqzoo.plugin.method import SkipLayer
from vqzoo.progress import Progress

Kept = TypeVar("Kept")
NOT_REACHED = "calibration does not reach it: its inputs were not seen"


def compress_model(
    model: nn.Module,
    plans: Sequence[LayerPlan],
    plugins: Plugins,
    keep: Callable[[int, CompressedLayer, Tensor], Kept],
    *,
    seed: int,
    device: torch.device,
    progress: Progress,
    statistics: Mapping[str, Statistics] | None = None,
    finished: Mapping[int, Kept] | None = None,
    on_kept: Callable[[int, Kept], None] | None = None,
    keep_going: bool = False,
    keep_going_option: str = "keep_going=True",
) -> tuple[list[Kept], dict[str, str]]:
    """Compress every planned layer that is not finished yet.

    Args:
        model: holds the weights; it is not changed.
        plans: the layers and the choices made for them.
        plugins: the installed methods.
        keep: takes a layer's place in `plans`, the compressed layer and its decoded matrix (m, n),
            and returns what to keep of them.
        seed: the run's.
        device: where to compute.
        progress: told of each layer.
        statistics: what calibration gathered, by layer; None without calibration. See
            `compress_layer`. Those that depend on the layers compressed before are closed at the
            end.
        finished: what an earlier, interrupted call kept, by place in `plans`.
        on_kept: called after each layer with how many came before it and what is kept of it.
        keep_going: leave a layer dense if its plugin fails, and continue with the others.
        keep_going_option: how the user asks for that, for the error message.

    Returns:
        What is kept, in the order of `plans`, and layer -> reason for those that stay dense.

    Raises:
        NothingCompressed: no layer could be compressed.
        UsageError: a method does not take its options.
        PluginError: a plugin failed, and `keep_going` is off.
    """
    if statistics is None:
        _note_what_images_bring(plans, plugins, progress)
    else:
        _note_uncalibrated_methods(plans, plugins, progress)
    kept, skipped = compress_each(
        model,
        plans,
        plugins,
        keep,
        seed=seed,
        device=device,
        progress=progress,
        statistics=statistics,
        finished=finished,
        on_kept=on_kept,
        keep_going=keep_going,
        keep_going_option=keep_going_option,
    )
    if not kept:
        raise nothing_compressed(plans, skipped)
    return kept, skipped


def compress_each(
    model: nn.Module,
    plans: Sequence[LayerPlan],
    plugins: Plugins,
    keep: Callable[[int, CompressedLayer, Tensor], Kept],
    *,
    seed: int,
    device: torch.device,
    progress: Progress,
    statistics: Mapping[str, Statistics] | None,
    keep_going: bool,
    keep_going_option: str,
    finished: Mapping[int, Kept] | None = None,
    on_kept: Callable[[int, Kept], None] | None = None,
) -> tuple[list[Kept], dict[str, str]]:
    """`compress_model` without its notes on calibration; there may be nothing to keep.

    Raises:
        UsageError: a method does not take its options.
        PluginError: a plugin failed, and `keep_going` is off.
    """
    finished = finished or {}
    kept: dict[int, Kept] = {}
    skipped: dict[str, str] = {}
    in_sequence = statistics if isinstance(statistics, InSequence) else None
    try:
        for position, index in enumerate(_order(plans, in_sequence)):
            plan = plans[index]
            name = plan.layer.name
            progress.layer_started(name, position, len(plans))
            if index in finished:
                kept[index] = finished[index]
            else:
                known = None if statistics is None else statistics.get(name)
                if statistics is not None and known is None:
                    progress.note(name, NOT_REACHED)
                try:
                    compressed, decoded = compress_layer(
                        model,
                        plan,
                        plugins,
                        seed=seed,
                        device=device,
                        progress=progress,
                        statistics=known,
                    )
                    kept[index] = keep(index, compressed, decoded)
                except SkipLayer as reason:
                    skipped[name] = str(reason)
                    progress.note(name, f"stays dense: {reason}")
                    continue
                except PluginError as error:
                    if not keep_going:
                        raise PluginError(
                            f"{error} ({keep_going_option} leaves it dense)"
                        ) from error
                    skipped[name] = f"failed: {error}"
                    progress.note(name, f"stays dense: {error}")
                    continue
                if in_sequence is not None:
                    in_sequence.put(name, decoded)
            if on_kept is not None:
                on_kept(position, kept[index])
    finally:
        if in_sequence is not None:
            in_sequence.close()
    return [kept[index] for index in sorted(kept)], skipped


def _order(plans: Sequence[LayerPlan], in_sequence: InSequence | None) -> Sequence[int]:
    """The places of plans in the order in which they are compressed."""
    if in_sequence is None:
        return range(len(plans))
    place = {name: at for at, name in enumerate(in_sequence.order)}
    return sorted(range(len(plans)), key=lambda index: place[plans[index].layer.name])


def nothing_compressed(plans: Sequence[LayerPlan], skipped: Mapping[str, str]) -> NothingCompressed:
    """The error where all layers stay dense; it says why the first one does."""
    first = plans[0].layer.name
    return NothingCompressed(
        f"no layer could be compressed; {first or 'the network'}: {skipped[first]}"
    )


def _note_uncalibrated_methods(
    plans: Sequence[LayerPlan], plugins: Plugins, progress: Progress
) -> None:
    """Note each method, at its first layer, that does not declare that it uses calibration."""
    first_layers = {plan.choice.method: plan.layer.name for plan in reversed(plans)}
    for method, layer in reversed(first_layers.items()):
        item = plugins.quantizers.get(method).item
        if not (item.calibrated or item.second_order):
            progress.note(
                layer, f"calibration may change nothing: {method} does not declare that it uses it"
            )


def _note_what_images_bring(
    plans: Sequence[LayerPlan], plugins: Plugins, progress: Progress
) -> None:
    """Note, at the first layer whose method uses them, what second-order statistics would bring."""
    for plan in plans:
        if plugins.quantizers.get(plan.choice.method).item.second_order:
            progress.note(
                plan.layer.name,
                "errors of all weights count alike: calibration on a few hundred unlabelled images "
                "would weight them by what they do to the answers",
            )
            return

"""Compress the planned layers of a network, one after the other or by several workers.

`vqzoo.compress` and runs use the same loop: they differ in what they keep of a compressed layer.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing

from torch import nn

from vqzoo.compression.plugin_calls import InSequence, Statistics
from vqzoo.compression.selection import LayerPlan
from vqzoo.compression.view import layer_weight
from vqzoo.compression.work import NOT_REACHED, Kept, LayerInput, LayerWork, carry_out
from vqzoo.compression.workers.pool import LayerWorkers, compress_by_workers
from vqzoo.errors import NothingCompressed, PluginError
from vqzoo.plugin.manager import Plugins
from vqzoo.plugin.method import SkipLayer
from vqzoo.progress import Progress


def compress_model(
    model: nn.Module,
    plans: Sequence[LayerPlan],
    plugins: Plugins,
    work: LayerWork[Kept],
    *,
    progress: Progress,
    statistics: Mapping[str, Statistics] | None = None,
    finished: Mapping[int, Kept] | None = None,
    on_kept: Callable[[int, int, Kept], None] | None = None,
    keep_going: bool = False,
    keep_going_option: str = "keep_going=True",
    workers: LayerWorkers | None = None,
) -> tuple[list[Kept], dict[str, str]]:
    """Compress every planned layer that is not finished yet.

    Args:
        model: holds the weights; it is not changed.
        plans: the layers and the choices made for them.
        plugins: the installed methods.
        work: what to do with each layer.
        progress: told of each layer.
        statistics: what calibration gathered, by layer; None without calibration. See
            `compress_layer`. Those that depend on the layers compressed before are closed at the
            end.
        finished: what an earlier, interrupted call kept, by place in `plans`.
        on_kept: called after each layer with its place in `plans`, how many came before it, and
            what is kept of it.
        keep_going: leave a layer dense if its plugin fails, and continue with the others.
        keep_going_option: how the user asks for that, for the error message.
        workers: compress layers there, unless each depends on those compressed before; None
            compresses one after the other in this process. What is kept is the same.

    Returns:
        What is kept, in the order of `plans`, and layer -> reason for those that stay dense.

    Raises:
        NothingCompressed: no layer could be compressed.
        UsageError: a method does not take its options.
        PluginError: a plugin failed, and `keep_going` is off.
        VqzooError: a worker died.
    """
    if statistics is None:
        _note_what_images_bring(plans, plugins, progress)
    else:
        _note_uncalibrated_methods(plans, plugins, progress)
    kept, skipped = compress_each(
        model,
        plans,
        work,
        progress=progress,
        statistics=statistics,
        finished=finished,
        on_kept=on_kept,
        keep_going=keep_going,
        keep_going_option=keep_going_option,
        workers=workers,
    )
    if not kept:
        raise nothing_compressed(plans, skipped)
    return kept, skipped


def compress_each(
    model: nn.Module,
    plans: Sequence[LayerPlan],
    work: LayerWork[Kept],
    *,
    progress: Progress,
    statistics: Mapping[str, Statistics] | None,
    keep_going: bool,
    keep_going_option: str,
    finished: Mapping[int, Kept] | None = None,
    on_kept: Callable[[int, int, Kept], None] | None = None,
    workers: LayerWorkers | None = None,
) -> tuple[list[Kept], dict[str, str]]:
    """`compress_model` without its notes on calibration; there may be nothing to keep.

    Raises:
        UsageError: a method does not take its options.
        PluginError: a plugin failed, and `keep_going` is off.
        VqzooError: a worker died.
    """
    finished = finished or {}
    kept: dict[int, Kept] = {}
    skipped: dict[int, str] = {}
    if workers is None or isinstance(statistics, InSequence):
        outcomes = _one_by_one(model, plans, work, finished, statistics, progress)
    else:
        outcomes = compress_by_workers(model, plans, work, finished, statistics, workers, progress)
    with closing(outcomes):
        for before, (index, outcome) in enumerate(outcomes):
            name = plans[index].layer.name
            if isinstance(outcome, SkipLayer):
                skipped[index] = str(outcome)
                progress.note(name, f"stays dense: {outcome}")
            elif isinstance(outcome, PluginError):
                if not keep_going:
                    text = f"{outcome} ({keep_going_option} leaves it dense)"
                    raise PluginError(text) from outcome
                skipped[index] = f"failed: {outcome}"
                progress.note(name, f"stays dense: {outcome}")
            else:
                kept[index] = outcome
                if on_kept is not None:
                    on_kept(index, before, outcome)
    reasons = {plans[index].layer.name: skipped[index] for index in sorted(skipped)}
    return [kept[index] for index in sorted(kept)], reasons


def _one_by_one(
    model: nn.Module,
    plans: Sequence[LayerPlan],
    work: LayerWork[Kept],
    finished: Mapping[int, Kept],
    statistics: Mapping[str, Statistics] | None,
    progress: Progress,
) -> Generator[tuple[int, Kept | SkipLayer | PluginError], None, None]:
    """Compress layers in this process; see `compress_by_workers`."""
    in_sequence = statistics if isinstance(statistics, InSequence) else None
    try:
        for position, index in enumerate(_order(plans, in_sequence)):
            plan = plans[index]
            name = plan.layer.name
            progress.layer_started(name, position, len(plans))
            if index in finished:
                yield index, finished[index]
                continue
            known = None if statistics is None else statistics.get(name)
            if statistics is not None and known is None:
                progress.note(name, NOT_REACHED)
            try:
                layer = LayerInput(plan, layer_weight(model, name), known, progress)
                kept, decoded = carry_out(work, layer)
            except (SkipLayer, PluginError) as error:
                yield index, error
                continue
            if in_sequence is not None:
                in_sequence.put(name, decoded)
            del decoded
            yield index, kept
    finally:
        if in_sequence is not None:
            in_sequence.close()


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

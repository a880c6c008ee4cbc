"""Runs that fine-tune: compress, fine-tune, decode, and so on, the method that was asked for last.

A method may want the network retrained before its own turn (`Quantizer.stages`): "prune, retrain,
then share and retrain", Han, Mao, Dally 2016, arXiv 1510.00149.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from vqzoo.artifact.encode import EncodedLayer
from vqzoo.artifact.writer import dense_bytes, write_artifact
from vqzoo.compression.options import choose_options
from vqzoo.compression.selection import LayerPlan, MethodChoice
from vqzoo.finetuning.encoded import (
    Learned,
    Lesson,
    encoded_again,
    finetuning_block,
    layer_name,
    learn,
)
from vqzoo.plugin.isolation import isolated, on_layer
from vqzoo.plugin.method import SkipLayer
from vqzoo.progress import Watcher
from vqzoo.runs.compress_layers import CompressedNetwork, compress_layers
from vqzoo.runs.prepare import Prepared
from vqzoo.runs.workspace import Workspace, finetuning_checkpoint, stage_workspace

PLAIN_PACKING = "bits"


def compress_in_stages(
    ready: Prepared, lesson: Lesson, work: Workspace, watcher: Watcher, keep_going: bool
) -> CompressedNetwork:
    """Compress and fine-tune, stage after stage, each from the decoded network of the one before.

    Raises:
        NothingCompressed: not one layer could be.
        PluginError: a plugin failed, and the run is not to keep going.
        VqzooError: fine-tuning failed.
    """
    planned = [*_earlier_stages(ready), ready.plans]
    module, seconds = ready.opened.module, 0.0
    stages: list[dict[str, Any]] = [{"method": "dense", "bytes": dense_bytes(module)}]
    for index, plans in enumerate(planned):
        last = index == len(planned) - 1
        room = stage_workspace(work, None if last else index)
        packing = ready.recipe.packing if last else PLAIN_PACKING
        stage = replace(
            ready,
            plans=plans,
            opened=replace(ready.opened, module=module),
            recipe=ready.recipe.model_copy(update={"packing": packing}),
        )
        if index == 0 and work.resumed:
            watcher.say(f"Resuming {work.partial}.")
        if len(planned) > 1:
            watcher.say(f"stage {index + 1} of {len(planned)}: {_methods(plans)}")
        made = compress_layers(stage, room, watcher, keep_going)
        clock = time.perf_counter()
        checkpoint = finetuning_checkpoint(room)
        learned = learn(
            module, made.layers, made.rows, lesson, packing, ready.plugins, watcher, checkpoint
        )
        seconds += time.perf_counter() - clock
        stages += _entries(stage, learned)
        module = learned.module
    return CompressedNetwork(
        module=module,
        layers=learned.layers,
        rows=learned.rows,
        skipped=made.skipped,
        stages=stages,
        finetuning=finetuning_block(lesson, learned.tuned),
        finetuning_seconds=seconds,
    )


def _earlier_stages(ready: Prepared) -> list[list[LayerPlan]]:
    """The plans of every stage before the last; a layer without one of its own waits."""
    wanted: list[list[tuple[str, Mapping[str, Any]]]] = []
    for plan in ready.plans:
        entry = ready.plugins.quantizers.get(plan.choice.method)
        with isolated(on_layer(entry, plan.layer.name)):
            try:
                options = choose_options(
                    entry.item, plan.layer.matrix_shape, plan.choice, lambda text: None
                )
                wanted.append(list(entry.item.stages(options)))
            except SkipLayer:
                wanted.append([])
    stages: list[list[LayerPlan]] = []
    for index in range(max(map(len, wanted))):
        stages.append([])
        for plan, own in zip(ready.plans, wanted, strict=True):
            if index < len(own):
                method, options = own[index]
                choice = MethodChoice(method, options, None, plan.choice.transforms)
                stages[-1].append(LayerPlan(plan.layer, choice))
    return stages


def _entries(stage: Prepared, learned: Learned) -> list[dict[str, Any]]:
    """What the record says of a stage; a packing other than `bits` has an entry of its own."""
    packing = stage.recipe.packing
    best = learned.tuned.history[learned.tuned.best_epoch] if learned.tuned.history else {}
    common = {
        "method": _methods(stage.plans),
        "options": {row["name"]: row["options"] for row in learned.rows},
        "best_epoch": learned.tuned.best_epoch,
        "validation_loss": best.get("validation_loss"),
        "validation_top1": best.get("validation_top1"),
    }
    plain = learned.layers
    if packing != PLAIN_PACKING:
        plain = [
            encoded_again(layer, learned.codes[layer_name(layer)], PLAIN_PACKING, stage.plugins)
            for layer in plain
        ]
    sizes = {PLAIN_PACKING: plain, packing: learned.layers}
    return [
        {**common, "packing": name, "bytes": _file_bytes(stage, learned.module, layers)}
        for name, layers in sizes.items()
    ]


def _file_bytes(stage: Prepared, module: nn.Module, layers: list[EncodedLayer]) -> int:
    """Size of the weights file that these layers make."""
    with tempfile.TemporaryDirectory() as scratch:
        written = write_artifact(
            Path(scratch),
            module,
            layers,
            stage.config,
            method=stage.recipe.label,
            weights=stage.opened.weights,
        )
    return written.file_bytes


def _methods(plans: Sequence[LayerPlan]) -> str:
    return ", ".join(dict.fromkeys(plan.choice.method for plan in plans))

"""Runs that fine-tune: compress, fine-tune and decode in stages that end with the chosen method.

A method may need the network to be retrained before its own stage (`Quantizer.stages`): Han, Mao,
Dally 2016, arXiv 1510.00149, prune, retrain, then share weights and retrain.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

from vqzoo.artifact.encode import FIXED_WIDTH
from vqzoo.artifact.writer import dense_bytes
from vqzoo.compression.options import choose_options
from vqzoo.compression.selection import LayerPlan, MethodChoice
from vqzoo.compression.view import layer_name
from vqzoo.finetuning.encoded import (
    FinetunedLayers,
    FinetuningTask,
    finetune_layers,
    finetuning_record,
    reencode,
)
from vqzoo.plugin.isolation import isolated, on_layer
from vqzoo.plugin.method import SkipLayer
from vqzoo.progress import Watcher
from vqzoo.report.steps import StageRecord
from vqzoo.runs.compress_layers import CompressedNetwork, compress_layers, weights_file_bytes
from vqzoo.runs.prepare import Prepared
from vqzoo.runs.workspace import Workspace, finetuning_checkpoint, stage_workspace


def compress_in_stages(
    prepared: Prepared,
    task: FinetuningTask,
    work: Workspace,
    watcher: Watcher,
    keep_going: bool,
    executor: Executor | None,
) -> CompressedNetwork:
    """Compress and fine-tune, each stage starting from the decoded network of the one before.

    Raises:
        NothingCompressed: no layer could be compressed.
        PluginError: a plugin failed, and `keep_going` is false.
        VqzooError: fine-tuning failed.
    """
    stage_plans = [*earlier_stages(prepared), prepared.plans]
    module, seconds = prepared.opened.module, 0.0
    stages = [StageRecord(method="dense", bytes=dense_bytes(module))]
    for index, plans in enumerate(stage_plans):
        is_last = index == len(stage_plans) - 1
        stage_work = stage_workspace(work, None if is_last else index)
        packing = prepared.recipe.packing if is_last else FIXED_WIDTH
        stage = replace(
            prepared,
            plans=plans,
            opened=replace(prepared.opened, module=module),
            recipe=prepared.recipe.model_copy(update={"packing": packing}),
        )
        if index == 0 and work.resumed:
            watcher.say(f"Resuming {work.partial}.")
        if len(stage_plans) > 1:
            watcher.say(f"stage {index + 1} of {len(stage_plans)}: {_methods(plans)}")
        network = compress_layers(stage, stage_work, watcher, keep_going, executor)
        start = time.perf_counter()
        finetuned = finetune_layers(
            module,
            network.layers,
            [layer.description() for layer in network.rows],
            task,
            packing,
            prepared.plugins,
            watcher,
            finetuning_checkpoint(stage_work),
        )
        seconds += time.perf_counter() - start
        stages += _stage_records(stage, finetuned)
        module = finetuned.module
    return CompressedNetwork(
        module=module,
        layers=finetuned.layers,
        rows=finetuned.records,
        skipped=network.skipped,
        stages=stages,
        finetuning=finetuning_record(task, finetuned.result),
        finetuning_seconds=seconds,
    )


def earlier_stages(prepared: Prepared) -> list[list[LayerPlan]]:
    """The plans of every stage but the last; a layer whose method has fewer stages sits out the
    later ones."""
    stages_of_layers: list[list[tuple[str, Mapping[str, Any]]]] = []
    for plan in prepared.plans:
        entry = prepared.plugins.quantizers.get(plan.choice.method)
        with isolated(on_layer(entry, plan.layer.name)):
            try:
                options = choose_options(
                    entry.item, plan.layer.matrix_shape, plan.choice, lambda text: None
                )
                stages_of_layers.append(list(entry.item.stages(options)))
            except SkipLayer:
                stages_of_layers.append([])
    stages: list[list[LayerPlan]] = []
    for index in range(max(map(len, stages_of_layers))):
        stages.append([])
        for plan, layer_stages in zip(prepared.plans, stages_of_layers, strict=True):
            if index < len(layer_stages):
                method, options = layer_stages[index]
                choice = MethodChoice(method, options, None, plan.choice.transforms)
                stages[-1].append(LayerPlan(plan.layer, choice))
    return stages


def _stage_records(stage: Prepared, finetuned: FinetunedLayers) -> list[StageRecord]:
    """The record of a stage at fixed width, and one in the run's packing if that is another."""
    packing = stage.recipe.packing or _packing_of_methods(stage)
    layers = {packing: finetuned.layers}
    if packing != FIXED_WIDTH:
        fixed_width = [
            reencode(layer, finetuned.codes[layer_name(layer.key)], FIXED_WIDTH, stage.plugins)
            for layer in finetuned.layers
        ]
        layers = {FIXED_WIDTH: fixed_width, packing: finetuned.layers}
    tuned = finetuned.result
    best = next(entry for entry in tuned.history if entry["epoch"] == tuned.best_epoch)
    return [
        StageRecord(
            method=_methods(stage.plans),
            options={layer.name: layer.options for layer in finetuned.records},
            best_epoch=tuned.best_epoch,
            validation_loss=best["validation_loss"],
            validation_top1=best["validation_top1"],
            packing=name,
            bytes=weights_file_bytes(stage, finetuned.module, encoded),
        )
        for name, encoded in layers.items()
    ]


def _packing_of_methods(stage: Prepared) -> str:
    """The packing of the first method whose codes are not made for fixed width, if there is one."""
    methods = (stage.plugins.quantizers.get(plan.choice.method).item for plan in stage.plans)
    packings = (method.packing for method in methods)
    return next((name for name in packings if name != FIXED_WIDTH), FIXED_WIDTH)


def _methods(plans: Sequence[LayerPlan]) -> str:
    return ", ".join(dict.fromkeys(plan.choice.method for plan in plans))

"""One run: compress, write, read back, measure, record."""

import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vqzoo.artifact.files import write_text
from vqzoo.artifact.folder import check_target
from vqzoo.artifact.schema import DENSE_FILE, REPORT_FILE
from vqzoo.artifact.writer import dense_bytes, untouched_tensors, write_artifact, write_tensors
from vqzoo.calibration.repair import repair_with
from vqzoo.data.batches import Data
from vqzoo.finetuning.encoded import Lesson, code_of, decoded_network, layer_name
from vqzoo.network.load import load
from vqzoo.plugin.files import plugin_files
from vqzoo.progress import Watcher
from vqzoo.report.card import write_card
from vqzoo.report.formatting import nats
from vqzoo.report.record import ratios, versions
from vqzoo.runs.before_after import accuracy, before_and_after
from vqzoo.runs.command_line import canonical_command
from vqzoo.runs.compress_layers import CompressedNetwork, compress_layers
from vqzoo.runs.prepare import Prepared, prepare
from vqzoo.runs.recipe import Recipe
from vqzoo.runs.stages import compress_in_stages
from vqzoo.runs.workspace import (
    Workspace,
    abandon_if_empty,
    finish,
    finished_record,
    open_workspace,
)


@dataclass(frozen=True)
class FinishedRun:
    """What a run leaves: the artifact's folder and its record."""

    folder: Path
    record: dict[str, Any]


def run(
    recipe: Recipe,
    watcher: Watcher,
    *,
    out: Path | None = None,
    force: bool = False,
    reuse: bool = False,
    fall_back: bool = True,
    keep_going: bool = False,
) -> FinishedRun:
    """Compress a model into an artifact, and measure what is on disk.

    A run that breaks off leaves `<out>.partial`; the same run takes it up again.

    Args:
        recipe: what to do.
        watcher: told how it goes.
        out: the artifact's folder; by default named after model, method and recipe.
        force: replace a finished folder.
        reuse: take a finished folder as it is where the very same was asked for.
        fall_back: let an embedded relative stand in for a bare name whose weights cannot be had.
        keep_going: leave a layer dense whose plugin fails, and go on with the others.

    Raises:
        UsageError: something asked for does not exist or makes no sense; nothing was written.
        VqzooError: the run failed.
    """
    with plugin_files(recipe.plugins):
        return _run(recipe, watcher, out, force, reuse, fall_back, keep_going)


def _run(
    recipe: Recipe,
    watcher: Watcher,
    out: Path | None,
    force: bool,
    reuse: bool,
    fall_back: bool,
    keep_going: bool,
) -> FinishedRun:
    started = time.perf_counter()
    ready = prepare(recipe, watcher, out, fall_back=fall_back)
    recipe = ready.recipe
    if reuse and (found := finished_record(ready.target, ready.digest)) is not None:
        return FinishedRun(ready.target, found)
    check_target(ready.target, ready.digest, force=force)
    model = ready.opened.module

    clock = time.perf_counter()
    before = accuracy(model, ready.data, ready.device, watcher, "dense")
    evaluating = time.perf_counter() - clock

    clock = time.perf_counter()
    work = open_workspace(ready.target, ready.digest)
    try:
        made = _compress(ready, work, watcher, keep_going)
    except BaseException:
        abandon_if_empty(work)
        raise
    compressing = time.perf_counter() - clock - made.finetuning_seconds

    written = write_artifact(
        work.partial,
        made.module,
        made.layers,
        ready.config,
        method=recipe.label,
        weights=ready.opened.weights,
    )
    with watcher.phase("reading the artifact back"):
        reread = load(work.partial)
    if recipe.dense:
        tensors, _ = untouched_tensors(reread, set())
        write_tensors(work.partial / DENSE_FILE, tensors, {"format": "pt"})

    clock = time.perf_counter()
    measured = before_and_after(before, model, reread, ready.data, ready.device, watcher)
    evaluating += time.perf_counter() - clock

    dense = dense_bytes(model)
    record: dict[str, Any] = {
        "model": ready.opened.name,
        "weights": ready.opened.weights,
        "weights_sha256": ready.opened.weights_sha256,
        "method": recipe.label,
        "options": {**recipe.options, **({"ratio": recipe.ratio} if recipe.ratio else {})},
        "seed": recipe.seed,
        "asked_sha256": ready.digest,
        "bytes": {"dense": dense, "file": written.file_bytes},
        "ratio": ratios(made.rows, dense, written.file_bytes),
        **measured,
        "layers": made.rows,
        "skipped": made.skipped,
        "stages": made.stages,
        "finetuning": made.finetuning,
        "calibration": _data_block(ready.calibration),
        "repair": made.repair,
        "seconds": {
            "compress": compressing,
            **({"finetune": made.finetuning_seconds} if recipe.finetune else {}),
            "evaluate": evaluating,
            "total": time.perf_counter() - started,
        },
        "command": canonical_command(recipe, ready.opened.name),
        "versions": versions(ready.plugins),
    }
    write_text(work.partial / REPORT_FILE, json.dumps(record, indent=2, allow_nan=False) + "\n")
    write_card(work.partial, ready.plugins)
    finish(work)
    ready.plugins.notify("vqzoo_run_finished", record=record, folder=str(ready.target))
    return FinishedRun(ready.target, record)


def _compress(
    ready: Prepared, work: Workspace, watcher: Watcher, keep_going: bool
) -> CompressedNetwork:
    """Compress, and fine-tune where that is asked for."""
    if ready.recipe.finetune is None or ready.training is None:
        return _repair(ready, compress_layers(ready, work, watcher, keep_going), watcher)
    dense = ready.opened.module
    lesson = Lesson(
        dense, dense, ready.training, ready.recipe.finetune, ready.recipe.seed, ready.device
    )
    return compress_in_stages(ready, lesson, work, watcher, keep_going)


def _repair(ready: Prepared, made: CompressedNetwork, watcher: Watcher) -> CompressedNetwork:
    """Repair biases and batch norms, where that is asked for."""
    data = ready.repair
    if data is None:
        return made
    codes = {layer_name(layer): code_of(layer, ready.plugins) for layer in made.layers}
    compressed = decoded_network(made.module, codes, ready.plugins)

    repaired = repair_with(
        data, made.module, compressed, codes, device=ready.device, watcher=watcher
    )
    before, after = (d if math.isfinite(d) else None for d in repaired.divergence)
    counts = f"{len(repaired.norms)} batch norms and {len(repaired.biases)} biases"
    watcher.say(f"Repaired {counts}: {nats(before)} from the dense answers, now {nats(after)}.")
    told = {
        "data": data.name,
        "images": data.images,
        "biases": repaired.biases,
        "norms": repaired.norms,
        "divergence": {"before": before, "after": after},
    }
    return replace(made, module=repaired.module, repair=told)


def _data_block(data: Data | None) -> dict[str, Any] | None:
    return None if data is None else {"data": data.name, "images": data.images}

"""One run: compress a model as a recipe says."""

import time
from concurrent.futures import Executor
from pathlib import Path

from vqzoo.artifact.folder import check_target
from vqzoo.artifact.lock import folder_lock
from vqzoo.compression.norms.folding import FoldedNorms
from vqzoo.data.batches import Data
from vqzoo.errors import UsageError
from vqzoo.finetuning.encoded import FinetuningTask
from vqzoo.plugin.files import plugin_files
from vqzoo.progress import Watcher
from vqzoo.report.steps import CalibrationRecord, NormsRecord
from vqzoo.runs.budget.choose import choose_layers
from vqzoo.runs.command_line import canonical_command
from vqzoo.runs.compress_layers import CompressedNetwork, compress_layers
from vqzoo.runs.corrections.recover import recover_network
from vqzoo.runs.corrections.repair import repair_network
from vqzoo.runs.finish import FinishedRun, RunFacts, finish_run, unreadable_images
from vqzoo.runs.prepare import Prepared, parse_device, prepare
from vqzoo.runs.recipe import Recipe, method_label
from vqzoo.runs.shared.baseline import baseline_of
from vqzoo.runs.shared.steps import shared_by_runs
from vqzoo.runs.stages import compress_in_stages
from vqzoo.runs.workspace import Workspace, abandon_if_empty, finished_record, open_workspace
from vqzoo.storage.shared import SharedFolder


def run(
    recipe: Recipe,
    watcher: Watcher,
    *,
    out: Path | None = None,
    force: bool = False,
    reuse: bool = False,
    fall_back: bool = True,
    keep_going: bool = False,
    shared: SharedFolder | None = None,
    executor: Executor | None = None,
) -> FinishedRun:
    """Compress a model into an artifact, and measure the artifact read back from disk.

    An interrupted run leaves `<out>.partial`; the same call resumes it.

    Args:
        recipe: the model, the methods, and the images to measure on.
        watcher: receives progress.
        out: the artifact's folder; by default named after model, method and recipe.
        force: replace a finished folder.
        reuse: return a finished folder as it is if the same request made it.
        fall_back: use an embedded relative of a model whose weights are not available.
        keep_going: leave a layer dense if its plugin fails, and continue.
        shared: a folder that keeps the dense model's evaluation and second-order statistics for
            other runs on the same model and images; decoded images then stay in this machine's
            cache.
        executor: compresses the layers, several at a time, into the same artifact; None compresses
            them one after the other in this process.

    Raises:
        UsageError: the recipe names something that does not exist or does not fit, or its layers
            cannot be compressed side by side; nothing was written.
        VqzooError: the run failed.
    """
    if executor is not None:
        check_side_by_side(recipe)
    with plugin_files(recipe.plugins), shared_by_runs(shared):
        return _run(recipe, watcher, out, force, reuse, fall_back, keep_going, shared, executor)


def why_one_by_one(recipe: Recipe) -> str | None:
    """Why the layers of a recipe cannot be compressed side by side; None if they can."""
    if recipe.sequential and recipe.budget is None:
        return "--sequential compresses each layer behind those before it"
    if parse_device(recipe.device).type != "cpu":
        return f"executors compress layers on CPUs, not on --device {recipe.device}"
    return None


def check_side_by_side(recipe: Recipe) -> None:
    """Refuse an executor for a recipe whose layers cannot be compressed side by side.

    Raises:
        UsageError: says why.
    """
    if (reason := why_one_by_one(recipe)) is not None:
        raise UsageError(f"--executor cannot be used: {reason}; leave out one of the two")


def _run(
    recipe: Recipe,
    watcher: Watcher,
    out: Path | None,
    force: bool,
    reuse: bool,
    fall_back: bool,
    keep_going: bool,
    shared: SharedFolder | None,
    executor: Executor | None,
) -> FinishedRun:
    started = time.perf_counter()
    prepared = prepare(recipe, watcher, out, fall_back=fall_back)
    if reuse and (record := finished_record(prepared.target, prepared.digest)) is not None:
        return FinishedRun(prepared.target, record)
    with folder_lock(prepared.target):
        check_target(prepared.target, prepared.digest, force=force)
        return _execute(prepared, watcher, keep_going, started, shared, executor)


def _execute(
    prepared: Prepared,
    watcher: Watcher,
    keep_going: bool,
    started: float,
    shared: SharedFolder | None,
    executor: Executor | None,
) -> FinishedRun:
    """Do the work of a run that nothing keeps from starting."""
    recipe, dense = prepared.recipe, prepared.opened
    baseline = baseline_of(recipe, dense, prepared.data, prepared.device, watcher, shared)

    compression_start = time.perf_counter()
    work = open_workspace(prepared.target, prepared.digest)
    try:
        prepared, budget = choose_layers(prepared, work, watcher, keep_going, executor)
        network = _compress(prepared, work, watcher, keep_going, executor)
    except BaseException:
        abandon_if_empty(work)
        raise
    seconds = time.perf_counter() - compression_start - network.finetuning_seconds

    facts = RunFacts(
        dense=dense,
        config=prepared.config,
        weights=dense.weights,
        method=recipe.label if budget is None else method_label(r.method for r in network.rows),
        options={**recipe.options, **({"ratio": recipe.ratio} if recipe.ratio else {})},
        seed=recipe.seed,
        digest=prepared.digest,
        command=canonical_command(recipe, dense.name),
        calibration=_calibration_record(prepared.calibration, recipe.sequential),
        budget=budget,
        unreadable=unreadable_images(
            prepared.data, prepared.training, prepared.calibration, prepared.repair
        ),
        started=started,
        compress_seconds=seconds,
        write_dense=recipe.dense,
        rest=recipe.rest_dtype,
        layout=recipe.file_layout,
        norms=_norms_record(prepared.norms),
    )
    return finish_run(facts, network, baseline, work, prepared.plugins, watcher)


def _calibration_record(data: Data | None, sequential: bool) -> CalibrationRecord | None:
    if data is None:
        return None
    record = CalibrationRecord(data=data.name, images=data.images)
    return CalibrationRecord(**record.to_dict(), sequential=True) if sequential else record


def _norms_record(norms: FoldedNorms | None) -> NormsRecord | None:
    if norms is None:
        return None
    return NormsRecord(folded=norms.layers, kept=norms.kept, difference=norms.difference)


def _compress(
    prepared: Prepared,
    work: Workspace,
    watcher: Watcher,
    keep_going: bool,
    executor: Executor | None,
) -> CompressedNetwork:
    """Compress, then fine-tune, repair or recover if the recipe asks for it."""
    settings, training = prepared.recipe.finetune, prepared.training
    if settings is None or training is None:
        network = compress_layers(prepared, work, watcher, keep_going, executor)
        return recover_network(prepared, repair_network(prepared, network, watcher), work, watcher)
    dense = prepared.opened.module
    task = FinetuningTask(dense, dense, training, settings, prepared.recipe.seed, prepared.device)
    return compress_in_stages(prepared, task, work, watcher, keep_going, executor)

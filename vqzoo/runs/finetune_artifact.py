"""`vqzoo finetune`: fine-tune an artifact into a better one of the same size."""

import time
from pathlib import Path

from vqzoo.artifact.folder import check_target
from vqzoo.artifact.lock import folder_lock
from vqzoo.artifact.reader import Artifact
from vqzoo.compression.norms.folding import fold_into
from vqzoo.data.training_data import TrainingData
from vqzoo.errors import UsageError
from vqzoo.finetuning.encoded import FinetuningTask, finetune_layers, finetuning_record
from vqzoo.models.dense import OpenedModel, find_model
from vqzoo.models.embedded import default_data
from vqzoo.network.build import build_model
from vqzoo.network.load import verified_artifact
from vqzoo.plugin.files import plugin_files
from vqzoo.plugin.manager import installed_plugins
from vqzoo.progress import Watcher
from vqzoo.report.record import Record
from vqzoo.report.record_file import read_record
from vqzoo.report.steps import NormsRecord
from vqzoo.runs.before_after import measure_baseline
from vqzoo.runs.command_line import finetune_command
from vqzoo.runs.compress_layers import CompressedNetwork
from vqzoo.runs.finetune_request import FinetuneRequest, finetune_digest
from vqzoo.runs.finish import FinishedRun, RunFacts, finish_run, unreadable_images
from vqzoo.runs.prepare import open_measured_data, open_training_images, parse_device
from vqzoo.runs.source_artifact import (
    default_target,
    open_dense_model,
    read_stored_layers,
)
from vqzoo.runs.workspace import abandon_if_empty, finetuning_checkpoint, open_workspace


def finetune_artifact(
    request: FinetuneRequest, watcher: Watcher, *, out: Path | None = None, force: bool = False
) -> FinishedRun:
    """Fine-tune an artifact into a new one, and measure the new one read back from disk.

    An interrupted call leaves `<out>.partial`; the same call resumes it after the last complete
    epoch.

    Args:
        request: the artifact, and how to fine-tune it.
        watcher: receives progress.
        out: the new folder; `<source>-finetuned` by default.
        force: replace a finished folder.

    Raises:
        UsageError: the request names something that does not exist or does not fit; nothing was
            written.
        ArtifactError: the artifact is damaged, or needs a plugin that is not installed.
        VqzooError: fine-tuning failed.
    """
    with plugin_files(request.plugins):
        return _finetune(request, watcher, out, force)


def _finetune(
    request: FinetuneRequest, watcher: Watcher, out: Path | None, force: bool
) -> FinishedRun:
    started = time.perf_counter()
    device, plugins = parse_device(request.device), installed_plugins()
    artifact, _ = verified_artifact(request.source)
    record = read_record(artifact)
    with watcher.phase("reading the artifact"):
        module = build_model(artifact, plugins)
    dense = open_dense_model(artifact, record, module, request, watcher)
    teacher = dense if request.teacher is None else find_model(request.teacher, watcher)
    with watcher.phase("opening the images"):
        training = _open_training(request, dense, watcher)
        data = open_measured_data(request, dense, watcher)
    digest = finetune_digest(request, artifact, dense, teacher, plugins)
    target = out or default_target(request.source)
    with folder_lock(target):
        check_target(target, digest, force=force)
        baseline = measure_baseline(dense.module, data, device, watcher)

        work = open_workspace(target, digest)
        stored = read_stored_layers(artifact, record, module)
        norms = artifact.metadata.norms
        compressed = fold_into(dense.module, norms) if norms else dense.module
        task = FinetuningTask(
            compressed,
            teacher.module,
            training,
            request.settings,
            request.seed,
            device,
        )
        finetuning_start = time.perf_counter()
        try:
            finetuned = finetune_layers(
                module,
                stored.layers,
                stored.descriptions,
                task,
                stored.packing,
                plugins,
                watcher,
                finetuning_checkpoint(work),
            )
        except BaseException:
            abandon_if_empty(work)
            raise
        network = CompressedNetwork(
            module=finetuned.module,
            layers=finetuned.layers,
            rows=finetuned.records,
            skipped=record.skipped if record is not None else {},
            finetuning=finetuning_record(task, finetuned.result).model_copy(
                update={"teacher": teacher.name, "seed": request.seed}
            ),
            finetuning_seconds=time.perf_counter() - finetuning_start,
            repair=record.repair if record is not None else None,
            recovery=record.recovery if record is not None else None,
        )
        facts = RunFacts(
            dense=dense,
            config=artifact.config,
            weights=artifact.block.weights,
            method=artifact.block.method,
            options=record.options if record is not None else {},
            seed=record.seed if record is not None else request.seed,
            digest=digest,
            command=finetune_command(request, record),
            calibration=record.calibration if record is not None else None,
            unreadable=unreadable_images(data, training),
            started=started,
            rest="float32" if record is None or record.rest is None else "float16",
            layout=artifact.layout,
            norms=_norms_record(artifact, record),
        )
        return finish_run(facts, network, baseline, work, plugins, watcher)


def _norms_record(artifact: Artifact, record: Record | None) -> NormsRecord | None:
    """Which norms of an artifact are folded, by its record or else by its header."""
    if record is not None:
        return record.norms
    norms = artifact.metadata.norms
    return NormsRecord(folded=norms, kept={}, difference=None) if norms else None


def _open_training(request: FinetuneRequest, dense: OpenedModel, watcher: Watcher) -> TrainingData:
    spec = request.settings.data or default_data(dense.name)
    if spec is None:
        raise UsageError(
            f"vqzoo has no training images for {dense.name}: give --data imagefolder:PATH"
        )
    return open_training_images(spec, request.settings, request, dense, watcher)

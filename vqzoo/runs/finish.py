"""The end of every run: write the artifact, read it back, measure it, record it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vqzoo.artifact.dtypes import torch_dtype
from vqzoo.artifact.schema import DENSE_FILE, LayerEntry, Layout, Proof, Rest
from vqzoo.artifact.writer import (
    dense_bytes,
    record_proof,
    untouched_tensors,
    write_artifact,
    write_tensors,
)
from vqzoo.compression.decode import decode
from vqzoo.compression.measures.coverage import account
from vqzoo.compression.norms.folding import merge_norms
from vqzoo.compression.rest import with_rounded_rest
from vqzoo.compression.view import copy_with_weights, layer_name
from vqzoo.data.batches import Data
from vqzoo.data.training_data import TrainingData
from vqzoo.errors import VqzooError
from vqzoo.finetuning.encoded import code_of
from vqzoo.models.arguments import required_features
from vqzoo.models.dense import OpenedModel
from vqzoo.network.load import load
from vqzoo.network.proof import prove
from vqzoo.plugin.manager import Plugins
from vqzoo.progress import Watcher
from vqzoo.report.block import Options
from vqzoo.report.budget import BudgetRecord
from vqzoo.report.card import write_card
from vqzoo.report.record import (
    FileSizes,
    Record,
    Seconds,
    coverage_record,
    ratios,
    versions,
)
from vqzoo.report.record_file import write_record
from vqzoo.report.steps import CalibrationRecord, NormsRecord, RestRecord
from vqzoo.runs.before_after import Baseline, measure_against
from vqzoo.runs.compress_layers import CompressedNetwork
from vqzoo.runs.workspace import Workspace, finish_workspace


@dataclass(frozen=True)
class FinishedRun:
    """The artifact's folder and the record of the run."""

    folder: Path
    record: Record


@dataclass(frozen=True)
class RunFacts:
    """What a record says of a run besides its results.

    Attributes:
        dense: the model that was compressed.
        config: the artifact's timm config.
        weights: source of the dense weights, for the artifact.
        method: the method in one word.
        options: the request's options.
        seed: the run's seed.
        digest: hash of the request.
        command: a command that makes the artifact again.
        calibration: the calibration images, if any.
        budget: the budget for the whole network, and how it was met; None without one.
        unreadable: data -> names of the images that were left out.
        started: `time.perf_counter()` at the start of the run.
        compress_seconds: time that compression took; None if this run compressed nothing.
        write_dense: whether to write the decoded weights, too.
        rest: how tensors that stay dense are stored.
        layout: how the weights file is laid out.
        norms: which batch norms are folded; None where none are.
    """

    dense: OpenedModel
    config: Mapping[str, Any]
    weights: str
    method: str
    options: Options
    seed: int
    digest: str
    command: str
    calibration: CalibrationRecord | None
    unreadable: Mapping[str, tuple[str, ...]]
    started: float
    compress_seconds: float | None = None
    budget: BudgetRecord | None = None
    write_dense: bool = False
    rest: Rest = "float32"
    layout: Layout = "plain"
    norms: NormsRecord | None = None


def unreadable_images(*data: Data | TrainingData | None) -> dict[str, tuple[str, ...]]:
    """Name of the data -> names of its images that cannot be read, where there are any."""
    names: dict[str, set[str]] = {}
    for images in data:
        if images is not None and images.unreadable:
            names.setdefault(images.name, set()).update(images.unreadable)
    return {name: tuple(sorted(lost)) for name, lost in names.items()}


def finish_run(
    facts: RunFacts,
    network: CompressedNetwork,
    baseline: Baseline,
    work: Workspace,
    plugins: Plugins,
    watcher: Watcher,
) -> FinishedRun:
    """Write a compressed network, its record and its card, and put the folder in its place."""
    rest: RestRecord | None = None
    if facts.norms is not None:
        network = replace(network, module=merge_norms(network.module))
    if facts.rest == "float16":
        rounded = with_rounded_rest(network.module, [layer.key for layer in network.layers])
        network = replace(network, module=rounded.module)
        rest = RestRecord(
            dtype=facts.rest, tensors=len(rounded.keys), kept=rounded.kept, error=rounded.error
        )
    written = write_artifact(
        work.partial,
        network.module,
        network.layers,
        facts.config,
        method=facts.method,
        weights=facts.weights,
        features=required_features(facts.config),
        rest=facts.rest,
        layout=facts.layout,
        norms=None if facts.norms is None else facts.norms.folded,
    )
    with watcher.phase("reading the artifact back"):
        reread = load(work.partial)
        record_proof(work.partial, _prove(network, reread, plugins))
    if facts.write_dense:
        tensors, _ = untouched_tensors(reread, set())
        write_tensors(work.partial / DENSE_FILE, tensors, {"format": "pt"})
    # The divergence of answers is what a budget's prediction is about.
    measured = measure_against(baseline, reread, watcher, agree=facts.budget is not None)
    seconds = {
        "compress": facts.compress_seconds,
        "finetune": None if network.finetuning is None else network.finetuning_seconds,
        "evaluate": measured.seconds,
        "total": time.perf_counter() - facts.started,
    }
    sizes = FileSizes(dense=dense_bytes(baseline.network), file=written.file_bytes)
    record = Record(
        model=facts.dense.name,
        weights=facts.dense.weights,
        weights_sha256=facts.dense.weights_sha256,
        method=facts.method,
        options=facts.options,
        seed=facts.seed,
        asked_sha256=facts.digest,
        bytes=sizes,
        ratio=ratios(network.rows, sizes),
        accuracy=measured.accuracy,
        agreement=measured.agreement,
        layers=tuple(network.rows),
        skipped=network.skipped,
        coverage=coverage_record(
            account(baseline.network, {row.name for row in network.rows}, network.skipped)
        ),
        stages=tuple(network.stages),
        finetuning=network.finetuning,
        calibration=facts.calibration,
        repair=network.repair,
        seconds=Seconds(**{name: value for name, value in seconds.items() if value is not None}),
        command=facts.command,
        versions=versions(plugins),
        **({} if facts.budget is None else {"budget": facts.budget}),
        **({} if rest is None else {"rest": rest}),
        **({} if facts.norms is None else {"norms": facts.norms}),
        **({} if network.recovery is None else {"recovery": network.recovery}),
        **({"unreadable": dict(facts.unreadable)} if facts.unreadable else {}),
    )
    write_record(record, work.partial)
    write_card(work.partial, plugins)
    finish_workspace(work)
    # Observers are plugins: their contract is report.json's plain dict, not the Record class.
    plugins.notify("vqzoo_run_finished", record=record.to_dict(), folder=str(work.target))
    return FinishedRun(work.target, record)


def _prove(network: CompressedNetwork, reread: nn.Module, plugins: Plugins) -> Proof:
    """Compare an artifact that was read back with what the run holds in memory.

    The decoded weights must be equal, and the two networks must give the same outputs.

    Args:
        network: the compressed network.
        reread: the network of its artifact.
        plugins: the installed plugins.

    Raises:
        VqzooError: they differ; names the weight or the module.
    """
    weights = {}
    for layer in network.layers:
        entry = LayerEntry.model_validate(layer.entry)
        weight = reread.get_parameter(layer.key).detach()
        decoded = decode(code_of(layer, plugins), plugins).to(torch_dtype(entry.dtype))
        if not torch.equal(decoded.to(weight.dtype).view(weight.shape), weight):
            raise VqzooError(
                f"{layer.key} decodes to other values from the file than in memory: the method "
                f"{entry.code.method} or the packing is not deterministic; nothing was written"
            )
        weights[layer_name(layer.key)] = weight.view(entry.view)
    # The weights are equal, so the two networks share them: memory holds them once.
    return prove(copy_with_weights(network.module, weights), reread)

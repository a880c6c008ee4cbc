"""The layers of a run: compressed, and kept as they are finished."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from vqzoo.artifact.encode import EncodedLayer
from vqzoo.artifact.file_size import network_bytes
from vqzoo.calibration.statistics import layer_statistics, sequential_statistics
from vqzoo.compression.decode import decode
from vqzoo.compression.encoded import encode_compressed
from vqzoo.compression.layer import compress_layer
from vqzoo.compression.model import compress_model
from vqzoo.compression.norms.folding import merge_norms
from vqzoo.compression.plugin_calls import Statistics
from vqzoo.compression.work import LayerInput
from vqzoo.compression.workers.pool import LayerWorkers
from vqzoo.finetuning.encoded import code_of
from vqzoo.models.arguments import required_features
from vqzoo.plugin.manager import Plugins
from vqzoo.progress import Watcher
from vqzoo.report.layer_record import LayerRecord, layer_record
from vqzoo.report.steps import FinetuningRecord, RecoveryRecord, RepairRecord, StageRecord
from vqzoo.runs.prepare import Prepared
from vqzoo.runs.workspace import Workspace, in_flight_folder, save_layer, saved_layer


@dataclass(frozen=True)
class CompressedNetwork:
    """A compressed network as a run writes and reports it.

    Attributes:
        module: everything that `layers` do not replace.
        layers: the compressed weights.
        rows: their rows of the record.
        skipped: layer -> why it stayed dense.
        stages: where the run fine-tuned, one entry a stage, the dense network first.
        finetuning: how the last stage was fine-tuned.
        finetuning_seconds: what fine-tuning took.
        repair: what was repaired, and on which images.
        recovery: what recovery did, and on which images.
    """

    module: nn.Module
    layers: list[EncodedLayer]
    rows: list[LayerRecord]
    skipped: dict[str, str]
    stages: list[StageRecord] = field(default_factory=list)
    finetuning: FinetuningRecord | None = None
    finetuning_seconds: float = 0.0
    repair: RepairRecord | None = None
    recovery: RecoveryRecord | None = None


@dataclass(frozen=True)
class KeptLayer:
    """A layer as the file will hold it, and its row of the record."""

    encoded: EncodedLayer
    row: LayerRecord


def compress_layers(
    prepared: Prepared,
    work: Workspace,
    watcher: Watcher,
    keep_going: bool,
    executor: Executor | None,
) -> CompressedNetwork:
    """Compress every planned layer but those that an interrupted run has finished.

    Raises:
        NothingCompressed: no layer could be compressed.
        PluginError: a plugin failed, and `keep_going` is off.
        VqzooError: a worker of the executor died.
    """
    if work.resumed:
        watcher.say(f"Resuming {work.partial}.")
    plans, plugins = prepared.plans, prepared.plugins
    saved = [saved_layer(work, index) for index in range(len(plans))]
    finished = {i: KeptLayer(*layer) for i, layer in enumerate(saved) if layer is not None}

    def take(index: int, before: int, layer: KeptLayer) -> None:
        if index not in finished:
            save_layer(work, index, layer.encoded, layer.row)
        # Observers are plugins: their contract is report.json's plain dict.
        row = layer.row.to_dict()
        plugins.notify("vqzoo_layer_compressed", layer=row, done=before + 1, total=len(plans))

    layers, skipped = compress_model(
        prepared.opened.module,
        plans,
        plugins,
        partial(
            _compress_and_encode,
            plugins=plugins,
            packing=prepared.recipe.packing,
            seed=prepared.recipe.seed,
            device=prepared.device,
        ),
        progress=watcher,
        statistics=gather_statistics(prepared, finished, watcher),
        finished=finished,
        on_kept=take,
        keep_going=keep_going,
        keep_going_option="--keep-going",
        workers=layer_workers(work, executor),
    )
    return CompressedNetwork(
        prepared.opened.module,
        [layer.encoded for layer in layers],
        [layer.row for layer in layers],
        prepared.skipped | skipped,
    )


def layer_workers(work: Workspace, executor: Executor | None) -> LayerWorkers | None:
    """Where the layers of a run are compressed; None for this process."""
    return None if executor is None else LayerWorkers(executor, in_flight_folder(work))


def _compress_and_encode(
    layer: LayerInput, *, plugins: Plugins, packing: str | None, seed: int, device: torch.device
) -> tuple[KeptLayer, Tensor]:
    compressed, decoded = compress_layer(layer, plugins=plugins, seed=seed, device=device)
    encoded = encode_compressed(compressed, layer.weight.dtype, packing, plugins)
    return KeptLayer(encoded, layer_record(compressed, encoded)), decoded


def weights_file_bytes(
    prepared: Prepared, module: nn.Module, layers: Sequence[EncodedLayer]
) -> int:
    """Size of the `vqzoo.safetensors` that holds these layers and the rest of `module`."""
    recipe, norms = prepared.recipe, prepared.norms
    if norms is not None:
        module = merge_norms(module)
    return network_bytes(
        module,
        layers,
        recipe.rest_dtype,
        required_features(prepared.config),
        recipe.file_layout,
        None if norms is None else norms.layers,
    )


def gather_statistics(
    prepared: Prepared, finished: Mapping[int, KeptLayer], watcher: Watcher
) -> Mapping[str, Statistics] | None:
    """What calibration says about layers not yet compressed; None if the run does not calibrate.

    Args:
        prepared: the run.
        finished: what is compressed already, by place in its plans.
        watcher: receives progress.
    """
    if prepared.calibration is None:
        return None
    request = (prepared.opened.module, prepared.plans, prepared.plugins, prepared.calibration)
    seed, device = prepared.recipe.seed, prepared.device
    decoders = {
        prepared.plans[index].layer.name: partial(_decoded, layer.encoded, prepared.plugins)
        for index, layer in finished.items()
    }
    if prepared.recipe.sequential:
        return sequential_statistics(
            *request, seed=seed, device=device, watcher=watcher, finished=decoders
        )
    return layer_statistics(
        *request,
        seed=seed,
        device=device,
        watcher=watcher,
        finished=decoders,
        second_order_of_all=prepared.recipe.budget is not None,
    )


def _decoded(layer: EncodedLayer, plugins: Plugins) -> Tensor:
    return decode(code_of(layer, plugins), plugins)

"""The recovery step of a run."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from torch import nn

from vqzoo.compression.rest import with_rounded_rest
from vqzoo.compression.view import layer_name
from vqzoo.finetuning.encoded import code_of, decoded_network, encode_again, reencode
from vqzoo.finetuning.recovery.recover import Recovered, recover
from vqzoo.plugin.code import MethodCode
from vqzoo.progress import Watcher
from vqzoo.report.formatting import nats
from vqzoo.report.steps import Divergence, RecoveryRecord
from vqzoo.runs.compress_layers import CompressedNetwork, weights_file_bytes
from vqzoo.runs.prepare import Prepared
from vqzoo.runs.workspace import Workspace, recovery_folder


def recover_network(
    prepared: Prepared, network: CompressedNetwork, work: Workspace, watcher: Watcher
) -> CompressedNetwork:
    """Bring answers nearer to the dense network's if the recipe asks for it; else return `network`.

    A file that would grow by it, or beyond the size that the recipe names, keeps the network as it
    was: what was float16 may need float32.
    """
    recipe, plugins, dense = prepared.recipe, prepared.plugins, prepared.opened.module
    if not recipe.recover:
        return network
    assert prepared.calibration is not None
    assert prepared.held_out is not None
    codes = {layer_name(layer.key): code_of(layer, plugins) for layer in network.layers}
    keys = [layer.key for layer in network.layers]
    size = weights_file_bytes(prepared, network.module, network.layers)
    limit = max(size, recipe.size_bytes or 0)

    def fits(moved: Mapping[str, MethodCode]) -> bool:
        layers = [
            reencode(layer, moved[layer_name(layer.key)], recipe.packing, plugins)
            for layer in network.layers
        ]
        return weights_file_bytes(prepared, network.module, layers) <= limit

    recovered = recover(
        decoded_network(network.module, codes, plugins),
        codes,
        dense,
        prepared.calibration,
        prepared.held_out,
        plugins,
        watcher,
        seed=recipe.seed,
        device=prepared.device,
        stored=partial(_rounded, keys=keys) if recipe.rest_dtype == "float16" else _as_it_is,
        fits=fits,
        folder=recovery_folder(work),
    )
    descriptions = [layer.description() for layer in network.rows]
    layers, rows = encode_again(
        network.layers, descriptions, recovered.codes, dense, recipe.packing, plugins
    )
    changed = replace(network, module=recovered.module, layers=layers, rows=rows)
    grown = weights_file_bytes(prepared, changed.module, changed.layers) - limit
    record = _record(prepared, recovered)
    if grown > 0:
        watcher.say(f"Recovery is not kept: the file would be {grown:,} bytes too large.")
        before = record.divergence.before
        unchanged = {"best_epoch": 0, "biases": (), "norms": (), "blocks": (), "codes": 0}
        divergence = Divergence(before=before, after=before)
        record = record.model_copy(update={**unchanged, "divergence": divergence})
        return replace(network, recovery=record)
    watcher.say(
        f"Recovery: divergence from the dense model {nats(record.divergence.before)} before, "
        f"{nats(record.divergence.after)} after, on {record.held_out} held-out images."
    )
    return replace(changed, recovery=record)


def _record(prepared: Prepared, recovered: Recovered) -> RecoveryRecord:
    assert prepared.calibration is not None
    assert prepared.held_out is not None
    before, after = map(_finite, recovered.divergence)
    return RecoveryRecord(
        data=prepared.calibration.name,
        images=prepared.calibration.images or 0,
        held_out=prepared.held_out.images or 0,
        biases=tuple(recovered.biases),
        norms=tuple(recovered.norms),
        blocks=tuple(recovered.blocks),
        best_epoch=recovered.best_epoch,
        codes=recovered.moved,
        epochs=tuple(map(_finite, recovered.epochs)),
        divergence=Divergence(before=before, after=after),
    )


def _finite(divergence: float) -> float | None:
    return divergence if math.isfinite(divergence) else None


def _as_it_is(network: nn.Module) -> nn.Module:
    return network


def _rounded(network: nn.Module, keys: list[str]) -> nn.Module:
    """The network with its dense tensors as the file holds them."""
    return with_rounded_rest(network, keys).module

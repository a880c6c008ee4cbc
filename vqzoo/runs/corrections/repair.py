"""The repair step of a run."""

import math
from dataclasses import replace

from vqzoo.calibration.repair import repair_with
from vqzoo.compression.view import layer_name
from vqzoo.finetuning.encoded import code_of, decoded_network
from vqzoo.progress import Watcher
from vqzoo.report.formatting import count_of, nats
from vqzoo.report.steps import Divergence, RepairRecord
from vqzoo.runs.compress_layers import CompressedNetwork
from vqzoo.runs.prepare import Prepared


def repair_network(
    prepared: Prepared, network: CompressedNetwork, watcher: Watcher
) -> CompressedNetwork:
    """Correct biases and batch norms if the recipe asks for it; else return `network`."""
    data = prepared.repair
    if data is None:
        return network
    codes = {layer_name(layer.key): code_of(layer, prepared.plugins) for layer in network.layers}
    decoded = decoded_network(network.module, codes, prepared.plugins)
    repaired = repair_with(
        data, network.module, decoded, codes, device=prepared.device, watcher=watcher
    )
    before, after = (d if math.isfinite(d) else None for d in repaired.divergence)
    norms = count_of(len(repaired.norms), "batch norm")
    biases = count_of(len(repaired.biases), "bias", "biases")
    watcher.say(
        f"Repaired {norms} and {biases}: divergence from the dense model {nats(before)} before, "
        f"{nats(after)} after."
    )
    record = RepairRecord(
        data=data.name,
        images=data.images,
        biases=tuple(repaired.biases),
        norms=tuple(repaired.norms),
        divergence=Divergence(before=before, after=after),
    )
    return replace(network, module=repaired.module, repair=record)

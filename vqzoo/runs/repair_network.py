"""The repair step of a run."""

import math
from collections.abc import Iterator
from dataclasses import replace

from vqzoo.calibration.repair import repair
from vqzoo.compression.view import layer_name
from vqzoo.data.batches import Batch
from vqzoo.data.seeds import epoch_generator
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

    def batches() -> Iterator[Batch]:
        return data.batches(epoch_generator(prepared.recipe.seed, 0))

    images = data.images or prepared.recipe.calibration_images
    with watcher.images(f"repairing on {data.name}") as steps:
        repaired = repair(
            network.module,
            decoded_network(network.module, codes, prepared.plugins),
            codes,
            batches,
            images,
            device=prepared.device,
            progress=steps,
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
        images=images,
        biases=tuple(repaired.biases),
        norms=tuple(repaired.norms),
        divergence=Divergence(before=before, after=after),
    )
    return replace(network, module=repaired.module, repair=record)

"""One way to store a layer, made and judged in whichever process compresses it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vqzoo.artifact.encode import EncodedLayer
from vqzoo.artifact.file_size import artifact_bytes
from vqzoo.budget.prediction import predicted_loss
from vqzoo.compression.encoded import encode_compressed
from vqzoo.compression.layer import CompressedLayer, compress_layer
from vqzoo.compression.plugin_calls import Statistics
from vqzoo.compression.selection import LayerPlan, MethodChoice
from vqzoo.compression.view import weight_matrix
from vqzoo.compression.work import LayerInput
from vqzoo.plugin.manager import Plugins


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to store a layer.

    Attributes:
        choice: the method and its options: what makes it again.
        compressed: the codes.
        encoded: the codes as the file holds them.
        bits: what it adds to the file, its share of the header included.
        loss: predicted, in squared logits.
    """

    choice: MethodChoice
    compressed: CompressedLayer
    encoded: EncodedLayer
    bits: int
    loss: float


def make_candidate(
    layer: LayerInput,
    *,
    plugins: Plugins,
    packing: str | None,
    seed: int,
    device: torch.device,
    judged_by: Mapping[str, Statistics] | None = None,
) -> tuple[Candidate, Tensor]:
    """Compress a layer, and predict its loss.

    Args:
        layer: the layer, with statistics of both kinds.
        plugins: the installed plugins.
        packing: name of the packing for integer codes; None for that of each method.
        seed: the run's.
        device: where to compute.
        judged_by: statistics that predict the loss in the place of the layer's own, by layer.

    Returns:
        The candidate, and the decoded matrix.

    Raises:
        SkipLayer: the layer stays dense; the message says why.
        PluginError: a plugin failed.
    """
    plan, known = layer.plan, layer.statistics
    usable = None if known is None else declared(plan, known, plugins)
    compressed, decoded = compress_layer(
        replace(layer, statistics=usable), plugins=plugins, seed=seed, device=device
    )
    encoded = encode_compressed(compressed, layer.weight.dtype, packing, plugins)
    judge = known if judged_by is None else judged_by.get(plan.layer.name)
    loss = predicted_loss(
        weight_matrix(layer.weight, plan.layer, decoded.device),
        decoded,
        None if judge is None else judge.second_order,
    )
    return Candidate(plan.choice, compressed, encoded, _bits_in_file(encoded), loss), decoded


def declared(plan: LayerPlan, known: Statistics, plugins: Plugins) -> Statistics:
    """What a plan's method declares that it uses, as without a budget."""
    if plugins.quantizers.get(plan.choice.method).item.second_order:
        return Statistics(second_order=known.second_order)
    return Statistics(inputs=known.inputs)


def _bits_in_file(layer: EncodedLayer) -> int:
    """What a layer adds to a file: its tensors, and what the header says of them."""
    return 8 * (artifact_bytes({}, {}, [layer]) - artifact_bytes({}, {}, []))

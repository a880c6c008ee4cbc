"""Fine-tuning of encoded layers, from packed parts to packed parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vqzoo.artifact.codes import build_code
from vqzoo.artifact.dtypes import torch_dtype
from vqzoo.artifact.encode import EncodedLayer, encode_layer
from vqzoo.artifact.schema import LayerEntry
from vqzoo.compression.decode import decode
from vqzoo.compression.measures.distortion import matrix_error
from vqzoo.compression.view import copy_with_weights, layer_name
from vqzoo.data.training_data import TrainingData
from vqzoo.finetuning.loop import FinetuningResult, tune
from vqzoo.finetuning.settings import Finetuning
from vqzoo.plugin.code import MethodCode
from vqzoo.plugin.manager import Plugins
from vqzoo.progress import Watcher
from vqzoo.report.layer_record import LayerDescription, LayerRecord, measured_layer
from vqzoo.report.steps import EpochRecord, FinetuningRecord


@dataclass(frozen=True)
class FinetuningTask:
    """The inputs of fine-tuning besides the compressed layers.

    Attributes:
        dense: the network that was compressed; errors are measured against its weights.
        teacher: the network whose logits are the targets; often `dense` itself.
        data: images to train and to validate on.
        settings: how to train.
        seed: see `tune`.
        device: where to train.
    """

    dense: nn.Module
    teacher: nn.Module
    data: TrainingData
    settings: Finetuning
    seed: int
    device: torch.device


@dataclass(frozen=True)
class FinetunedLayers:
    """Fine-tuned layers, encoded again, and the rest of the network.

    Attributes:
        module: holds every tensor that `layers` do not replace.
        codes: layer -> code.
        layers: the compressed weights, packed.
        records: what the record says about each of `layers`.
        result: what `tune` returned.
    """

    module: nn.Module
    codes: Mapping[str, MethodCode]
    layers: list[EncodedLayer]
    records: list[LayerRecord]
    result: FinetuningResult


def finetune_layers(
    module: nn.Module,
    layers: Sequence[EncodedLayer],
    descriptions: Sequence[LayerDescription],
    task: FinetuningTask,
    packing: str | None,
    plugins: Plugins,
    watcher: Watcher,
    checkpoint: Path,
) -> FinetunedLayers:
    """Unpack encoded layers, fine-tune the network, and encode the layers again.

    Args:
        module: holds every tensor that `layers` do not replace; it is not changed.
        layers: the compressed weights.
        descriptions: how each of `layers` was compressed.
        task: what to train on, and how.
        packing: name of the packing for the new codes; None for that of each method.
        plugins: the loaded plugins.
        watcher: progress callbacks.
        checkpoint: see `tune`.

    Raises:
        VqzooError: see `tune`.
    """
    codes = {layer_name(layer.key): code_of(layer, plugins) for layer in layers}
    result = tune(
        decoded_network(module, codes, plugins),
        codes,
        task.teacher,
        task.data,
        task.settings,
        plugins,
        watcher,
        seed=task.seed,
        device=task.device,
        checkpoint=checkpoint,
    )
    encoded, records = encode_again(
        layers, descriptions, result.codes, task.dense, packing, plugins
    )
    return FinetunedLayers(result.module, result.codes, encoded, records, result)


def encode_again(
    layers: Sequence[EncodedLayer],
    descriptions: Sequence[LayerDescription],
    codes: Mapping[str, MethodCode],
    dense: nn.Module,
    packing: str | None,
    plugins: Plugins,
) -> tuple[list[EncodedLayer], list[LayerRecord]]:
    """Encode layers whose codes have other floats now, and measure them.

    Args:
        layers: the layers as they were.
        descriptions: how each of them was compressed.
        codes: layer -> code.
        dense: the network that was compressed.
        packing: name of the packing for the new codes; None for that of each method.
        plugins: the loaded plugins.

    Returns:
        The layers, packed, and what the record says about each.
    """
    encoded = [reencode(layer, codes[layer_name(layer.key)], packing, plugins) for layer in layers]
    records = []
    for description, before, after in zip(descriptions, layers, encoded, strict=True):
        code = codes[layer_name(before.key)]
        weight = dense.get_parameter(before.key).detach().float()
        error = matrix_error(weight.reshape(code.code.shape), decode(code, plugins))
        records.append(measured_layer(description, code.code, after, error))
    return encoded, records


def decoded_network(
    module: nn.Module, codes: Mapping[str, MethodCode], plugins: Plugins
) -> nn.Module:
    """Copy `module` with decoded weights in the layers that `codes` names."""
    return copy_with_weights(module, {name: decode(code, plugins) for name, code in codes.items()})


def finetuning_record(task: FinetuningTask, result: FinetuningResult) -> FinetuningRecord:
    """The record of fine-tuning: its settings, its images and its epochs."""
    return FinetuningRecord(
        **task.settings.model_dump(exclude={"data", "images"}),
        data=task.data.name,
        images=task.data.images,
        best_epoch=result.best_epoch,
        history=tuple(EpochRecord(**epoch) for epoch in result.history),
    )


def reencode(
    layer: EncodedLayer, code: MethodCode, packing: str | None, plugins: Plugins
) -> EncodedLayer:
    """Encode another code of the same method in place of a layer's own."""
    entry = LayerEntry.model_validate(layer.entry)
    return encode_layer(
        layer.key,
        entry.shape,
        torch_dtype(entry.dtype),
        code,
        entry.options,
        packing,
        plugins,
        [(step.name, step.options) for step in entry.transforms],
    )


def code_of(layer: EncodedLayer, plugins: Plugins) -> MethodCode:
    """Unpack a layer's code."""
    return build_code(layer.key, LayerEntry.model_validate(layer.entry), layer.tensors, plugins)

"""Fine-tuning of layers as a file holds them."""

import copy
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
from vqzoo.compression.distortion import matrix_error
from vqzoo.compression.view import layer_name, weight_key
from vqzoo.data.training_data import TrainingData
from vqzoo.finetuning.loop import Tuned, tune
from vqzoo.finetuning.settings import Finetuning
from vqzoo.plugin.code import MethodCode
from vqzoo.plugin.manager import Plugins
from vqzoo.progress import Watcher
from vqzoo.report.layer_record import LayerDescription, LayerRecord, measured_layer
from vqzoo.report.steps import EpochRecord, FinetuningRecord


@dataclass(frozen=True)
class Lesson:
    """What a network learns from, and how.

    Attributes:
        dense: the network that was compressed: what errors are measured against.
        teacher: the network to answer like; `dense` itself unless another was asked for.
        data: images to learn from and to validate on.
        settings: how.
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
class Learned:
    """A fine-tuned network, to be written.

    Attributes:
        module: everything that `layers` do not replace.
        codes: layer -> code.
        layers: the compressed weights, packed as they were to be.
        records: what the record says of them.
        tuned: how it went.
    """

    module: nn.Module
    codes: Mapping[str, MethodCode]
    layers: list[EncodedLayer]
    records: list[LayerRecord]
    tuned: Tuned


def learn(
    module: nn.Module,
    layers: Sequence[EncodedLayer],
    descriptions: Sequence[LayerDescription],
    lesson: Lesson,
    packing: str,
    plugins: Plugins,
    watcher: Watcher,
    checkpoint: Path,
) -> Learned:
    """Fine-tune encoded layers.

    Args:
        module: holds everything that `layers` do not replace; it is not changed.
        layers: the compressed weights.
        descriptions: how each of `layers` was compressed.
        packing: how codes become bytes again.
        checkpoint: see `tune`.
    """
    codes = {layer_name(layer.key): code_of(layer, plugins) for layer in layers}
    tuned = tune(
        decoded_network(module, codes, plugins),
        codes,
        lesson.teacher,
        lesson.data,
        lesson.settings,
        plugins,
        watcher,
        seed=lesson.seed,
        device=lesson.device,
        checkpoint=checkpoint,
    )
    encoded = [
        encoded_again(layer, tuned.codes[layer_name(layer.key)], packing, plugins)
        for layer in layers
    ]
    records = []
    for description, before, after in zip(descriptions, layers, encoded, strict=True):
        code = tuned.codes[layer_name(before.key)]
        dense = lesson.dense.get_parameter(before.key).detach().float()
        error = matrix_error(dense.reshape(code.code.shape), decode(code, plugins))
        records.append(measured_layer(description, code.code, after, error))
    return Learned(tuned.module, tuned.codes, encoded, records, tuned)


def decoded_network(
    module: nn.Module, codes: Mapping[str, MethodCode], plugins: Plugins
) -> nn.Module:
    """A copy of `module` with decoded weights in the layers that `codes` names."""
    network = copy.deepcopy(module)
    with torch.no_grad():
        for name, code in codes.items():
            weight = network.get_parameter(weight_key(name))
            weight.copy_(decode(code, plugins).view(weight.shape))
    return network


def finetuning_record(lesson: Lesson, tuned: Tuned) -> FinetuningRecord:
    """The record of a fine-tuning: its settings, its images and its epochs."""
    return FinetuningRecord(
        **lesson.settings.model_dump(exclude={"data", "images"}),
        data=lesson.data.name,
        images=lesson.data.images,
        best_epoch=tuned.best_epoch,
        history=tuple(EpochRecord(**epoch) for epoch in tuned.history),
    )


def encoded_again(
    layer: EncodedLayer, code: MethodCode, packing: str, plugins: Plugins
) -> EncodedLayer:
    """A layer with another code of the same kind."""
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
    """A layer's code, read from its packed parts."""
    return build_code(layer.key, LayerEntry.model_validate(layer.entry), layer.tensors, plugins)

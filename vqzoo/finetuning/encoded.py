"""Fine-tuning of layers as a file holds them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vqzoo.artifact.codes import build_code
from vqzoo.artifact.encode import EncodedLayer, encode_layer
from vqzoo.artifact.schema import LayerEntry
from vqzoo.compression.decode import decode
from vqzoo.compression.distortion import MatrixError, matrix_error
from vqzoo.compression.view import copy_with_weights
from vqzoo.data.training_data import TrainingData
from vqzoo.finetuning.loop import Tuned, tune
from vqzoo.finetuning.settings import Finetuning
from vqzoo.plugin.code import Code, MethodCode
from vqzoo.plugin.manager import Plugins
from vqzoo.progress import Watcher
from vqzoo.report.record import codes_block


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
        rows: their rows of the record.
        tuned: how it went.
    """

    module: nn.Module
    codes: Mapping[str, MethodCode]
    layers: list[EncodedLayer]
    rows: list[dict[str, Any]]
    tuned: Tuned


def learn(
    module: nn.Module,
    layers: Sequence[EncodedLayer],
    rows: Sequence[Mapping[str, Any]],
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
        rows: their rows of the record.
        packing: how codes become bytes again.
        checkpoint: see `tune`.
    """
    codes = {layer_name(layer): code_of(layer, plugins) for layer in layers}
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
        encoded_again(layer, tuned.codes[layer_name(layer)], packing, plugins) for layer in layers
    ]
    new_rows = []
    for row, before, after in zip(rows, layers, encoded, strict=True):
        code = tuned.codes[layer_name(before)]
        dense = lesson.dense.get_parameter(before.key).detach().float()
        error = matrix_error(dense.reshape(code.code.shape), decode(code, plugins))
        new_rows.append(_retuned_row(row, code.code, after, error))
    return Learned(tuned.module, tuned.codes, encoded, new_rows, tuned)


def decoded_network(
    module: nn.Module, codes: Mapping[str, MethodCode], plugins: Plugins
) -> nn.Module:
    """A copy of `module` with decoded weights in the layers that `codes` names."""
    return copy_with_weights(module, {name: decode(code, plugins) for name, code in codes.items()})


def finetuning_block(lesson: Lesson, tuned: Tuned) -> dict[str, Any]:
    """How a network was fine-tuned, for its record; see `Tuned` for `history`."""
    return {
        **lesson.settings.model_dump(exclude={"data"}),
        "data": lesson.data.name,
        "images": lesson.data.images,
        "best_epoch": tuned.best_epoch,
        "history": tuned.history,
    }


def _retuned_row(
    row: Mapping[str, Any], code: Code, encoded: EncodedLayer, error: MatrixError
) -> dict[str, Any]:
    """A layer's row after its floats have changed."""
    numel = math.prod(row["shape"])
    return {
        **row,
        "bits_per_weight": 8 * encoded.nbytes / numel,
        "ratio": 4 * numel / encoded.nbytes,
        "sqnr_db": error.sqnr_db,
        "row_sqnr_db": error.row_sqnr_db,
        "bytes": encoded.nbytes,
        "codes": codes_block(code, encoded),
    }


def encoded_again(
    layer: EncodedLayer, code: MethodCode, packing: str, plugins: Plugins
) -> EncodedLayer:
    """A layer with another code of the same kind."""
    entry = LayerEntry.model_validate(layer.entry)
    return encode_layer(
        layer.key,
        entry.shape,
        getattr(torch, entry.dtype),
        code,
        entry.options,
        packing,
        plugins,
        [(step.name, step.options) for step in entry.transforms],
    )


def code_of(layer: EncodedLayer, plugins: Plugins) -> MethodCode:
    """A layer's code, read from its packed parts."""
    return build_code(layer.key, LayerEntry.model_validate(layer.entry), layer.tensors, plugins)


def layer_name(layer: EncodedLayer) -> str:
    """The module path of a weight's layer."""
    return layer.key.removesuffix("weight").rstrip(".")

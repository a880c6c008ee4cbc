"""The size of a weights file is computed without writing it, to the byte."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

import vqzoo
from vqzoo.artifact.encode import EncodedLayer, encode_layer
from vqzoo.artifact.file_size import artifact_bytes
from vqzoo.artifact.writer import untouched_tensors, write_artifact
from vqzoo.compression.view import weight_key
from vqzoo.plugin.manager import installed_plugins


def encoded_layers(model: nn.Module, method: str, packing: str) -> list[EncodedLayer]:
    return [
        encode_layer(
            weight_key(layer.layer.name),
            layer.layer.shape,
            torch.float32,
            layer.compressed,
            layer.options,
            packing,
            installed_plugins(),
        )
        for layer in vqzoo.compress(model, method, layers="all").layers
    ]


def on_meta(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.to("meta") for key, tensor in tensors.items()}


def computed(model: nn.Module, layers: Sequence[EncodedLayer]) -> int:
    dense, aliases = untouched_tensors(model, {layer.key for layer in layers})
    size = artifact_bytes(dense, aliases, layers)
    without_values = [replace(layer, tensors=on_meta(layer.tensors)) for layer in layers]
    assert artifact_bytes(on_meta(dense), aliases, without_values) == size
    return size


@pytest.mark.parametrize("packing", ["bits", "huffman"])
@pytest.mark.parametrize("method", ["km", "rq", "svd", "prune"])
def test_the_computed_size_is_that_of_the_file(method: str, packing: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=7)
    model.register_buffer("größe", torch.zeros(3, dtype=torch.int64))
    layers = encoded_layers(model, method, packing)
    config = {"architecture": "test_resnet", "num_classes": 7}
    write_artifact(tmp_path, model, layers, config, method=method, weights="random")
    assert computed(model, layers) == (tmp_path / "vqzoo.safetensors").stat().st_size


def test_shared_weights_are_counted_once(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 64, bias=False))
    model[1].weight = model[0].weight
    model[2].weight = model[0].weight
    layers = encoded_layers(model, "km", "bits")
    write_artifact(tmp_path, model, layers, {}, method="km", weights="random")
    assert len(layers) == 1
    assert computed(model, layers) == (tmp_path / "vqzoo.safetensors").stat().st_size

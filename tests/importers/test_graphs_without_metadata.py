"""`vqzoo import --from onnx`: exports of vqzoo whose metadata another tool has removed."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import vqzoo
from vqzoo.artifact.reader import open_artifact
from vqzoo.errors import VqzooError
from vqzoo.network.export import export
from vqzoo.network.import_file import import_file

pytest.importorskip("onnxruntime")
import onnx

NETWORK = "alexnet_mini.fmnist"
Rules = dict[str, tuple[str, dict[str, Any]]]
METHODS: Rules = {
    "features.0": ("pq", {"d": 3, "k": 8, "codebook": "block"}),
    "features.4": ("rq", {"d": 4, "k": 16, "stages": 3}),
    "features.8": ("deep-compression", {}),
    "features.11": ("svd", {"rank": 8}),
    "features.14": ("prune", {}),
    "classifier.4": ("rq", {"d": 3, "k": 16, "stages": 2, "scale": "none"}),
    "classifier.6": ("pq", {"d": 4, "k": 16, "axis": "rows"}),
}


def exported(rules: Rules, folder: Path, **options: Any) -> Path:
    """An export without metadata of an artifact of the network."""
    vqzoo.register_models()
    network = timm.create_model(NETWORK, pretrained=True)
    vqzoo.compress(network, rules).save(folder / "small", packing="bits", rest="float16")
    export(folder / "small", "onnx", folder / "exported", **options)
    model = onnx.load(folder / "exported/model.onnx")
    del model.metadata_props[:]
    onnx.save(model, folder / "plain.onnx")
    return folder / "plain.onnx"


def check_that_it_comes_back(path: Path, folder: Path) -> None:
    """Import an export, and compare it with the artifact that it was made of."""
    import_file(path, "onnx", NETWORK, folder / "back")
    before, after = (open_artifact(folder / name) for name in ("small", "back"))
    methods = [
        {key: entry.code.method for key, entry in artifact.metadata.layers.items()}
        for artifact in (before, after)
    ]
    assert methods[0] == methods[1]
    assert after.block.bytes <= 1.01 * before.block.bytes
    states = [vqzoo.load(folder / name).state_dict() for name in ("small", "back")]
    differing = [
        key for key, tensor in states[0].items() if not torch.equal(states[1][key], tensor)
    ]
    assert all(key.endswith("num_batches_tracked") for key in differing)


def test_methods_are_recognized_by_their_operators(tmp_path: Path) -> None:
    check_that_it_comes_back(exported(METHODS, tmp_path), tmp_path)


def test_two_products_of_packed_integers_are_one_layer(tmp_path: Path) -> None:
    rules: Rules = {
        "classifier.4": ("rtn", {"format": "int8", "per": "group", "group": 64}),
        "classifier.6": ("rtn", {"format": "int6", "per": "row"}),
    }
    path = exported(rules, tmp_path, weights="packed")
    products = [node for node in onnx.load(path).graph.node if node.op_type == "MatMulNBits"]
    assert len(products) == 4
    check_that_it_comes_back(path, tmp_path)


def test_products_with_other_scales_are_refused(tmp_path: Path) -> None:
    rules: Rules = {"classifier.6": ("rtn", {"format": "int8"})}
    model = onnx.load(exported(rules, tmp_path, weights="packed"))
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    (factor,) = [one for one in model.graph.initializer if arrays[one.name].tolist() == 16.0]
    factor.CopyFrom(onnx.numpy_helper.from_array(arrays[factor.name] / 2, factor.name))
    onnx.save(model, tmp_path / "bad.onnx")
    with pytest.raises(VqzooError, match="added to a product with other scales") as refused:
        import_file(tmp_path / "bad.onnx", "onnx", NETWORK, tmp_path / "out")
    assert "\n" not in str(refused.value)


def test_other_codes_become_floats_or_are_refused_by_the_name_of_the_layer(tmp_path: Path) -> None:
    path = exported({"features.4": ("diba", {"k": 16})}, tmp_path)
    import_file(path, "onnx", NETWORK, tmp_path / "back")
    layers = open_artifact(tmp_path / "back").metadata.layers
    assert {key: entry.code.method for key, entry in layers.items()} == {"features.4.weight": "svd"}
    states = [vqzoo.load(tmp_path / name).state_dict() for name in ("small", "back")]
    assert torch.equal(states[0]["features.4.weight"], states[1]["features.4.weight"])
    (tmp_path / "ecq").mkdir()
    path = exported({"features.4": ("ecq", {"price": 1e-7})}, tmp_path / "ecq")
    with pytest.raises(
        VqzooError, match=r"the weight features\.4\.weight is computed by"
    ) as refused:
        import_file(path, "onnx", NETWORK, tmp_path / "out")
    assert "\n" not in str(refused.value)

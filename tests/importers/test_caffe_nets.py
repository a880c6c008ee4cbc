"""`vqzoo import --from deep-compression`: binary files of Deep Compression's authors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

import vqzoo as vqzoo_package
from tests.importers.caffe_net import ARCHITECTURE, Layer, deep_compression
from vqzoo.artifact.reader import open_artifact
from vqzoo.errors import VqzooError
from vqzoo.network.import_file import import_file

KIND = "deep-compression"


def check(folder: Path, expected: dict[str, Any], first: str) -> None:
    """The artifact's weights are the file's bit by bit, the first layer's for images in RGB."""
    state = vqzoo_package.load(folder).state_dict()
    expected[first] = expected[first][:, ::-1]
    assert state.keys() == expected.keys()
    assert [key for key, tensor in state.items() if not same(tensor, expected[key])] == []


def same(tensor: torch.Tensor, expected: Any) -> bool:
    return np.array_equal(tensor.numpy(), expected)


def test_codes_of_8_and_4_bits_are_decoded_bit_for_bit(tmp_path: Path) -> None:
    path, out = tmp_path / "lenet.net", tmp_path / "out"
    expected = deep_compression(path, timm.create_model(ARCHITECTURE))
    made = import_file(path, KIND, ARCHITECTURE, out)
    check(out, expected, "conv1.weight")
    assert made.layers == 4
    layers = open_artifact(out).metadata.layers
    assert {layer.code.method for layer in layers.values()} == {"deep-compression"}
    assert layers["fc1.weight"].code.parts["codes"].cardinality <= 15


def test_squeezenet_is_read_by_the_name_that_vqzoo_registers(vqzoo: Any, tmp_path: Path) -> None:
    vqzoo_package.register_models()
    model = timm.create_model("squeezenet1_0_caffe", num_classes=20)
    expected = deep_compression(tmp_path / "small.net", model)
    words = ["import", "small.net", "--from", KIND, "--model", "squeezenet1_0_caffe"]
    words += ["--model-arg", "num_classes=20", "--out", "small", "--packing", "ans"]
    words += ["--licence", "other"]
    done = vqzoo(*words)
    assert done.exit_code == 0, done.stderr
    assert "features.0 now takes RGB; the file has it for Caffe's BGR." in done.stderr
    check(tmp_path / "small", expected, "features.0.weight")
    size = (tmp_path / "small" / "vqzoo.safetensors").stat().st_size
    assert size <= (tmp_path / "small.net").stat().st_size


def test_a_first_value_that_is_not_zero_is_kept(tmp_path: Path) -> None:
    def change(layers: list[Layer]) -> None:
        layers[1].table[0] = 0.25
        layers[3].codes = [0] * len(layers[3].codes)

    path, out = tmp_path / "lenet.net", tmp_path / "out"
    expected = deep_compression(path, timm.create_model(ARCHITECTURE), change)
    import_file(path, KIND, ARCHITECTURE, out)
    assert (expected["conv2.weight"] == 0.25).mean() > 0.5
    assert not expected["fc2.weight"].any()
    check(out, expected, "conv1.weight")


def test_a_network_with_other_layers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lenet.net"
    deep_compression(path, timm.create_model(ARCHITECTURE))
    with pytest.raises(VqzooError, match=r"biases for conv1\.0, where the network has none"):
        import_file(path, KIND, "test_resnet", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def beyond(layers: list[Layer]) -> None:
    layers[2].gaps[5] = 15
    layers[2].gaps += [15] * 200
    layers[2].codes += [0] * 200


def no_entry(layers: list[Layer]) -> None:
    layers[1].gaps = []
    layers[1].codes = []


def infinite(layers: list[Layer]) -> None:
    layers[0].table[layers[0].codes[-1]] = np.inf


BAD: dict[str, tuple[Callable[[list[Layer]], None], str]] = {
    "gaps beyond the layer": (beyond, "fc1: its gaps lead beyond its 3200 weights"),
    "a layer without entries": (no_entry, "conv2 has 0 entries for 3200 weights"),
    "an infinite value": (infinite, "conv1.weight, part 'codebook' holds NaN or infinite"),
}


@pytest.mark.parametrize("case", BAD)
def test_damaged_layers_are_refused_by_name(tmp_path: Path, case: str) -> None:
    change, message = BAD[case]
    path = tmp_path / "bad.net"
    deep_compression(path, timm.create_model(ARCHITECTURE), change)
    with pytest.raises(VqzooError, match=message):
        import_file(path, KIND, ARCHITECTURE, tmp_path / "out")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "lenet.net"
    deep_compression(path, timm.create_model(ARCHITECTURE))
    data = path.read_bytes()
    for damaged, message in {
        b"": "ends within the counts of entries",
        data[:-1]: "ends within the gaps of fc2",
        data[:300]: "ends within the shared values of conv1",
        data + b"\0": "has 1 bytes beyond the network's last layer",
        b"\xff" * 16 + data[16:]: "conv1 has 4294967295 entries for 600 weights",
        data + bytes(10**6): "larger than the network's own weights",
    }.items():
        path.write_bytes(damaged)
        with pytest.raises(VqzooError, match=message):
            import_file(path, KIND, ARCHITECTURE, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    (tmp_path / "folder").mkdir()
    with pytest.raises(VqzooError, match="folder is no file"):
        import_file(tmp_path / "folder", KIND, ARCHITECTURE, tmp_path / "out")

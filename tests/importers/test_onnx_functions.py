"""`vqzoo import --from onnx` of files whose layers share local functions."""

from collections.abc import Callable
from pathlib import Path

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


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An artifact of many small layers, and its export, in which they share functions."""
    vqzoo.register_models()
    network = timm.create_model("mobilenet_mini.fmnist", pretrained=True)
    folder = tmp_path_factory.mktemp("functions")
    rules = {
        "blocks.*.conv_pw": ("pq", {"d": 2, "k": 16}),
        "blocks.*.conv_dw": ("km", {"k": 8}),
        "blocks.*.conv_pwl": ("km", {"k": 8}),
    }
    vqzoo.compress(network, rules).save(folder / "small", packing="bits", rest="float16")
    export(folder / "small", "onnx", folder / "exported")
    return folder / "small", folder / "exported/model.onnx"


@pytest.mark.parametrize("metadata", [True, False])
def test_functions_are_read(small: tuple[Path, Path], tmp_path: Path, metadata: bool) -> None:
    model = onnx.load(small[1])
    assert {function.name for function in model.functions} >= {"km", "pq"}
    if not metadata:
        del model.metadata_props[:]
    onnx.save(model, tmp_path / "model.onnx")
    import_file(tmp_path / "model.onnx", "onnx", "mobilenet_mini.fmnist", tmp_path / "back")
    methods = [
        {key: entry.code.method for key, entry in open_artifact(folder).metadata.layers.items()}
        for folder in (small[0], tmp_path / "back")
    ]
    assert methods[0] == methods[1]
    states = [vqzoo.load(folder).state_dict() for folder in (small[0], tmp_path / "back")]
    differing = [
        key for key, tensor in states[0].items() if not torch.equal(states[1][key], tensor)
    ]
    assert all(key.endswith("num_batches_tracked") for key in differing)


def calls_another(model: onnx.ModelProto) -> None:
    first, second = model.functions[:2]
    first.node[-1].domain, first.node[-1].op_type = second.domain, second.name


def many_operators(model: onnx.ModelProto) -> None:
    (called,) = [entry for entry in model.functions if entry.name == "km"]
    called.node.extend([called.node[-1]] * 100_000)


@pytest.mark.parametrize(
    ("change", "message"),
    [(calls_another, "calls others, not imported"), (many_operators, r"stand for \d+ operators")],
)
def test_hostile_functions_are_refused(
    small: tuple[Path, Path],
    tmp_path: Path,
    change: Callable[[onnx.ModelProto], None],
    message: str,
) -> None:
    model = onnx.load(small[1])
    del model.metadata_props[:]
    change(model)
    onnx.save(model, tmp_path / "bad.onnx")
    with pytest.raises(VqzooError, match=message) as refused:
        import_file(tmp_path / "bad.onnx", "onnx", "mobilenet_mini.fmnist", tmp_path / "out")
    assert "\n" not in str(refused.value)

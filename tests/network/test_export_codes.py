"""Exports that stay small: the network decodes its weights itself, and nothing else is needed."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import timm
import torch

import vqzoo
from vqzoo.network.export import export
from vqzoo.network.export.onnx import write_onnx

IMAGES = torch.randn(5, 1, 28, 28, generator=torch.Generator().manual_seed(2))
# A method for each layer; together they have codes of 1 to 12 bits, children and several parts.
METHODS = {
    "features.0": ("ecq", {"price": 1e-5, "transform": "cosine"}),
    "features.4": ("rq", {"d": 4, "k": 16, "stages": 2}),
    "features.8": ("deep-compression", {}),
    "features.11": ("diba", {"k": 16}),
    "features.14": ("prune", {}),
    "classifier.1": ("km", {"k": 8}),
    "classifier.4": ("pq", {"d": 6, "k": 4096}),
    "classifier.6": ("binary", {}),
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact in which each layer has another method, packed by `bits`."""
    vqzoo.register_models()
    torch.manual_seed(0)
    model = timm.create_model("alexnet_mini").eval()
    folder = tmp_path_factory.mktemp("mixed") / "artifact"
    vqzoo.compress(model, METHODS).save(folder, packing="bits", rest="float16")
    return folder


@pytest.fixture(scope="module")
def onnx_file(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("onnx") / "onnx"
    exported = export(mixed, "onnx", folder)
    assert exported.weights == "codes"
    return folder / "model.onnx"


def test_onnx_with_codes_computes_the_same_for_any_batch(mixed: Path, onnx_file: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_file)
    dense = vqzoo.load(mixed)
    for images in (IMAGES, IMAGES[:1]):
        (logits,) = session.run(None, {"images": images.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), dense(images), rtol=1e-3, atol=1e-4)


def test_onnx_with_codes_is_as_small_as_the_artifact(mixed: Path, onnx_file: Path) -> None:
    size = onnx_file.stat().st_size
    assert size <= 1.03 * (mixed / "vqzoo.safetensors").stat().st_size


def test_onnx_with_codes_holds_standard_operators_and_no_dense_weight(onnx_file: Path) -> None:
    import onnx

    model = onnx.load(onnx_file)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert [opset.domain for opset in model.opset_import] == [""]
    largest = max(np.prod(tensor.dims) for tensor in model.graph.initializer)
    assert largest < 2048 * 2048
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    batch, classes = inferred.graph.output[0].type.tensor_type.shape.dim
    assert (batch.dim_param != "", classes.dim_value) == (True, 10)


@pytest.fixture(scope="module")
def small_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an artifact of many small layers, and of its export."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    vqzoo.register_models()
    torch.manual_seed(0)
    model = timm.create_model("mobilenet_mini.fmnist", pretrained=True).eval()
    folder = tmp_path_factory.mktemp("small_layers")
    vqzoo.compress(model, "pq", layers="all").save(folder / "a", packing="bits", rest="float16")
    export(folder / "a", "onnx", folder / "onnx")
    return folder


def test_many_small_layers_share_functions_of_standard_operators(small_layers: Path) -> None:
    import onnx

    path = small_layers / "onnx/model.onnx"
    assert path.stat().st_size <= 1.03 * (small_layers / "a/vqzoo.safetensors").stat().st_size
    model = onnx.load(path)
    names = {function.name for function in model.functions}
    called = [node.op_type for node in model.graph.node if node.domain]
    assert {"pq"} <= set(called) == names
    assert len(called) > 4 * len(names)
    assert {node.domain for function in model.functions for node in function.node} == {""}
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    batch, classes = inferred.graph.output[0].type.tensor_type.shape.dim
    assert (batch.dim_param != "", classes.dim_value) == (True, 10)


def test_functions_compute_what_stood_in_their_places(small_layers: Path) -> None:
    import onnx
    import onnxruntime
    from onnx import inliner

    model = onnx.load(small_layers / "onnx/model.onnx")
    inlined = inliner.inline_local_functions(model)
    answers = [
        onnxruntime.InferenceSession(one.SerializeToString()).run(None, {"images": IMAGES.numpy()})
        for one in (model, inlined)
    ]
    np.testing.assert_array_equal(*[answer[0] for answer in answers])
    expected = vqzoo.load(small_layers / "a")(IMAGES)
    torch.testing.assert_close(torch.from_numpy(answers[0][0]), expected, rtol=1e-3, atol=1e-4)


def test_onnxruntime_folds_functions_at_load(small_layers: Path, tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    onnxruntime.InferenceSession(small_layers / "onnx/model.onnx", options)
    loaded = onnx.load(tmp_path / "loaded.onnx")
    assert not loaded.functions
    assert not {"pq", "Cast"} & {node.op_type for node in loaded.graph.node}


def test_trellises_of_many_layers_share_their_constants(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    vqzoo.register_models()
    torch.manual_seed(0)
    model = timm.create_model("mobilenet_mini", num_classes=10).eval()
    layers = {f"blocks.1.{i}.conv_pw": ("ecq", {"price": 1e-4, "trellis": True}) for i in range(3)}
    vqzoo.compress(model, layers).save(tmp_path / "a", packing="bits", rest="float16")
    export(tmp_path / "a", "onnx", tmp_path / "o")
    graph = onnx.load(tmp_path / "o/model.onnx").graph
    constants = [
        (tensor.data_type, tuple(tensor.dims), tensor.raw_data) for tensor in graph.initializer
    ]
    assert len(set(constants)) == len(constants)
    # Names outweigh the codes of small networks; onnx's own converter takes 85 bytes a node.
    assert sum(node.ByteSize() for node in graph.node) < 65 * len(graph.node)


def test_a_parameter_may_have_the_name_of_a_number(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")

    class Numbered(torch.nn.Module):
        pretrained_cfg = MappingProxyType({"input_size": (3, 8, 8)})

        def __init__(self) -> None:
            super().__init__()
            self.v1 = torch.nn.Parameter(torch.randn(3))
            self.n0 = torch.nn.Linear(3, 4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.n0((images.mean((2, 3)) * self.v1).relu() + 1)
            return logits

    model = Numbered().eval()
    write_onnx(model, model, tmp_path)  # compares the logits
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert {"v1", "n0.weight", "n0.bias"} <= {tensor.name for tensor in graph.initializer}


def test_a_program_of_torch_export_runs_without_vqzoo(mixed: Path, tmp_path: Path) -> None:
    exported = export(mixed, "pt2", tmp_path / "pt2")
    assert exported.bytes < 1.2 * exported.artifact_bytes
    torch.save(IMAGES, tmp_path / "images.pt")
    program = (
        "import sys, torch\n"
        "run = torch.export.load('pt2/model.pt2').module()\n"
        "torch.save(run(torch.load('images.pt')), 'logits.pt')\n"
        "assert not {'vqzoo', 'timm'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    logits = torch.load(tmp_path / "logits.pt")
    torch.testing.assert_close(logits, vqzoo.load(mixed)(IMAGES), rtol=1e-3, atol=1e-4)


def test_the_record_says_what_was_written(made: Path, vqzoo: Callable[..., Any]) -> None:
    done = vqzoo("export", str(made), "--to", "pt2", "--weights", "dense", "--out", "o", "--json")
    record = json.loads(done.stdout)
    assert (record["format"], record["weights"]) == ("pt2", "dense")
    assert record["files"] == ["o/config.json", "o/model.pt2"]
    assert 0 <= record["error"] <= record["tolerance"] == 1e-3
    assert record["bytes"] > record["artifact_bytes"]

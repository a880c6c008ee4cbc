"""ONNX files whose Linear layers onnxruntime multiplies by packed integers."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

import vqzoo
from vqzoo.errors import UsageError, VqzooError
from vqzoo.network.export import export
from vqzoo.network.import_file import import_file

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

IMAGES = torch.randn(5, 1, 28, 28, generator=torch.Generator().manual_seed(2))
# Rows of 1008 are padded; integers of 8 and 5 bits are two of 4; 48 does not divide 2048.
METHODS = {
    "features.4": ("rtn", {"format": "int8"}),
    "features.8": ("pq", {}),
    "classifier.1": ("rtn", {"format": "int8"}),
    "classifier.4": ("rtn", {"format": "int4", "per": "tensor"}),
    "classifier.6": ("rtn", {"format": "int5", "per": "group", "group": 48}),
}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    vqzoo.register_models()
    torch.manual_seed(0)
    model = timm.create_model("alexnet_mini").eval()
    folder = tmp_path_factory.mktemp("integers") / "artifact"
    vqzoo.compress(model, METHODS).save(folder, rest="float16")
    return folder


@pytest.fixture(scope="module")
def packed(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "onnx"
    exported = export(artifact, "onnx", folder, weights="packed")
    facts = dict(exported.written.facts)
    assert (exported.weights, facts["packed_layers"], facts["inputs"]) == ("packed", 3, "float32")
    assert exported.bytes <= 1.03 * exported.artifact_bytes
    return folder / "model.onnx"


def test_logits_are_the_artifacts_for_any_batch(artifact: Path, packed: Path) -> None:
    session = onnxruntime.InferenceSession(packed)
    network = vqzoo.load(artifact)
    for images in (IMAGES, IMAGES[:1]):
        (logits,) = session.run(None, {"images": images.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), network(images), rtol=1e-3, atol=1e-4)


def test_onnxruntime_holds_no_weight_of_these_layers(packed: Path, tmp_path: Path) -> None:
    import onnx

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    onnxruntime.InferenceSession(packed, options)
    graph = onnx.load(tmp_path / "loaded.onnx").graph
    operators = Counter(node.op_type for node in graph.node)
    assert operators["MatMulNBits"] == 5  # for three layers, two of them with two products each
    assert operators["Gemm"] == operators["MatMul"] == 0
    floats = [t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    largest = max(np.prod(tensor.dims) for tensor in floats)
    assert largest < 2048 * 1008  # the smaller of the two large layers


def test_inputs_of_8_bits_round(artifact: Path, tmp_path: Path) -> None:
    exported = export(artifact, "onnx", tmp_path / "o", weights="packed", inputs="int8")
    assert exported.written.check is not None
    assert 1e-5 < exported.written.check.error < 0.05


def test_the_file_comes_back_as_the_artifact(artifact: Path, packed: Path, tmp_path: Path) -> None:
    import_file(packed, "onnx", "alexnet_mini", tmp_path / "back")
    expected = vqzoo.load(artifact).state_dict()
    back = vqzoo.load(tmp_path / "back").state_dict()
    assert all(torch.equal(back[key], value) for key, value in expected.items())


def test_unknown_operators_on_integers_are_refused(packed: Path, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(packed)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "theirs.onnx")
    with pytest.raises(VqzooError, match=r"integers classifier\.1\.weight\.codes__0 .* Pad"):
        import_file(tmp_path / "theirs.onnx", "onnx", "alexnet_mini", tmp_path / "out")


def test_layers_whose_weight_the_network_reads_count_as_decoded(tmp_path: Path) -> None:
    arguments = {"img_size": 32, "embed_dim": 32, "depth": 1, "num_heads": 2, "num_classes": 10}
    model = timm.create_model("beit_base_patch16_224", **arguments).eval()
    vqzoo.compress(model, "rtn", format="int4", layers="dense").save(tmp_path / "small")
    written = export(tmp_path / "small", "onnx", tmp_path / "o", weights="packed").written
    import onnx

    graph = onnx.load(tmp_path / "o/model.onnx").graph
    operators = Counter(node.op_type for node in graph.node)
    assert dict(written.facts)["packed_layers"] == operators["MatMulNBits"] == 4
    assert "layers that it decodes at load: 1." in written.notes[0]  # its attention's qkv


def test_what_cannot_be_packed_is_refused(made: Path, artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(VqzooError, match="no Linear layer has integers times scales"):
        export(made, "onnx", tmp_path / "o", weights="packed")
    with pytest.raises(UsageError, match="pt2 has codes or dense weights only"):
        export(artifact, "pt2", tmp_path / "o", weights="packed")
    with pytest.raises(UsageError, match="for packed weights alone"):
        export(artifact, "onnx", tmp_path / "o", inputs="int8")
    assert not (tmp_path / "o").exists()

"""OpenVINO's IR: codes stay codes in the file."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch

import vqzoo
from vqzoo.errors import VqzooError
from vqzoo.network.export import export

openvino = pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def test_openvino_gets_codes_and_computes_the_same_for_any_batch(tmp_path: Path) -> None:
    vqzoo.register_models()
    torch.manual_seed(0)
    model = timm.create_model("alexnet_mini").eval()
    rules = {
        "classifier.1": ("pq", {"d": 8, "k": 256}),
        "classifier.4": ("rtn", {"format": "int4"}),
        "classifier.6": ("diba", {}),
        "features.8": ("km", {"k": 5}),
    }
    vqzoo.compress(model, rules).save(tmp_path / "a", packing="bits", rest="float16")
    exported = export(tmp_path / "a", "openvino", tmp_path / "o")
    graph, weights = tmp_path / "o/model.xml", tmp_path / "o/model.bin"
    assert exported.bytes == graph.stat().st_size + weights.stat().st_size
    assert weights.stat().st_size <= 1.04 * exported.artifact_bytes
    assert graph.stat().st_size <= 20_000 * 9
    assert not (tmp_path / "o/model.onnx").exists()
    core = openvino.Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    compiled = core.compile_model(graph, "CPU", exact)
    dense = vqzoo.load(tmp_path / "a")
    for batch in (5, 1):
        images = torch.randn(batch, 1, 28, 28, generator=torch.Generator().manual_seed(batch))
        logits = compiled(images.numpy())[0]
        expected = dense(images).detach().numpy()
        np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)


def test_what_openvino_cannot_run_is_refused_in_one_line(tmp_path: Path) -> None:
    vqzoo.register_models()
    model = timm.create_model("mobilenet_mini").eval()
    vqzoo.compress(model, {"blocks.0.0.conv_dw": ("diba", {})}).save(tmp_path / "a")
    with pytest.raises(VqzooError, match="--weights dense, or --to onnx") as refused:
        export(tmp_path / "a", "openvino", tmp_path / "o")
    assert "\n" not in str(refused.value)
    export(tmp_path / "a", "openvino", tmp_path / "o", weights="dense")

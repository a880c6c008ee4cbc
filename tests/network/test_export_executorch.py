"""Programs of ExecuTorch: codes stay codes in the file, and XNNPACK multiplies."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

import vqzoo
from vqzoo.network.export import export
from vqzoo.network.export.pte import convolution

executorch = pytest.mark.skipif(
    find_spec("executorch") is None, reason="needs the extra executorch"
)


@pytest.mark.parametrize(
    "settings",
    [
        {"channels": 6, "outputs": 4, "kernel_size": 1},
        {"channels": 6, "outputs": 4, "kernel_size": 1, "stride": 2, "bias": False},
        {"channels": 6, "outputs": 8, "kernel_size": 3, "padding": 1, "groups": 2},
        {"channels": 6, "outputs": 6, "kernel_size": 3, "stride": 2, "padding": 1, "groups": 6},
        {"channels": 6, "outputs": 12, "kernel_size": (2, 3), "padding": (0, 2), "groups": 6},
        {"channels": 3, "outputs": 5, "kernel_size": 5, "stride": (3, 2), "dilation": (2, 1)},
    ],
    ids=["1x1", "strided", "groups", "channels", "multiplied channels", "dilated"],
)
@pytest.mark.parametrize("count", [1, 3])
def test_products_are_the_convolution(settings: dict[str, Any], count: int) -> None:
    torch.manual_seed(0)
    words = dict(settings)
    layer = nn.Conv2d(words.pop("channels"), words.pop("outputs"), **words).double()
    images = torch.randn(count, layer.in_channels, 13, 11).double()
    with torch.no_grad(), convolution.DecodedConvolutions():
        decoded = F.conv2d(
            images,
            layer.weight * 1.0,
            layer.bias,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
        )
    torch.testing.assert_close(decoded, layer(images), rtol=1e-12, atol=1e-12)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    vqzoo.register_models()
    torch.manual_seed(0)
    model = timm.create_model("alexnet_mini").eval()
    rules = {
        "classifier.1": ("ecq", {"price": 1e-7}),
        "features.8": ("km", {"k": 5}),
    }
    folder = tmp_path_factory.mktemp("executorch") / "artifact"
    vqzoo.compress(model, rules).save(folder, packing="bits", rest="float32")
    return folder


@executorch
@pytest.mark.slow
def test_executorch_gets_codes_and_computes_the_same(
    artifact: Path, tmp_path: Path, vqzoo: Callable[..., Any]
) -> None:
    done = vqzoo("export", str(artifact), "--to", "pte", "--out", "o", "--json")
    record = json.loads(done.stdout)
    assert (record["format"], record["weights"]) == ("pte", "codes")
    assert 0 <= record["error"] <= record["tolerance"] == 1e-3
    assert record["bytes"] <= 1.06 * record["artifact_bytes"]
    # Products run in XNNPACK; tables are looked up outside.
    assert record["xnnpack_operations"] > 20
    assert "aten.embedding.default" in record["portable"]
    assert not {"aten.convolution.default", "aten.linear.default"} & set(
        record["portable"].replace(",", "").split()
    )
    again = vqzoo("export", str(artifact), "--to", "pte", "--out", "p")
    assert (tmp_path / "o/model.pte").read_bytes() == (tmp_path / "p/model.pte").read_bytes()
    assert "XNNPACK runs" in again.stdout


@executorch
@pytest.mark.slow
def test_dense_weights_are_xnnpacks(made: Path, tmp_path: Path) -> None:
    exported = export(made, "pte", tmp_path / "o", weights="dense")
    assert int(dict(exported.written.facts)["portable_operations"]) <= 4
    assert exported.bytes > exported.artifact_bytes
    assert exported.written.check is not None

"""Core AI assets: palettes by Core AI's own operators, run by its own runtime."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import vqzoo

pytest.importorskip("coreai_torch")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    vqzoo.register_models()
    torch.manual_seed(0)
    model = timm.create_model("alexnet_mini").eval()
    rules = {
        "features.4": ("pq", {"d": 4, "k": 64, "axis": "rows"}),
        "features.8": ("km", {"k": 5}),
        "features.11": ("rq", {"d": 4, "k": 16, "stages": 2}),
        "classifier.1": ("svd", {"rank": 8}),
        "classifier.4": ("rtn", {"format": "int8"}),
    }
    folder = tmp_path_factory.mktemp("coreai") / "artifact"
    vqzoo.compress(model, rules).save(folder, packing="bits", rest="float16")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("tables", ["float16", "int8"])
def test_core_ai_looks_weights_up_and_computes_the_same(
    tables: str, artifact: Path, tmp_path: Path, vqzoo: Callable[..., Any]
) -> None:
    words = ["export", str(artifact), "--to", "coreai", "--tables", tables, "--out", "o", "--json"]
    record = json.loads(vqzoo(*words).stdout)
    assert 0 < record["error"] <= record["tolerance"] == (1e-3 if tables == "float16" else 0.1)
    assert (record["palettes"], record["two_layers"]) == (3, 1)
    assert record["int8_tables"] == (0 if tables == "float16" else 2)  # not the grid of int8
    assert [weight["key"] for weight in record["dense"]] == ["features.11.weight"]
    from coreai.authoring import AIModelAsset

    text = str(AIModelAsset.load(tmp_path / "o/model.aimodel").program)
    assert text.count("= coreai.lut_to_dense") == 3
    for codes in ("16x32x5x5xui6", "128x64x3x3xui4", "2048x2048xui8"):
        assert f"tensor<{codes}>" in text

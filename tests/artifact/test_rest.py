"""Tensors that stay dense in float16: smaller files, small errors, nothing out of range."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

import vqzoo
from vqzoo.artifact.reader import open_artifact
from vqzoo.compression.rest import with_rounded_rest

Vqzoo = Callable[..., Any]
load = vqzoo.load  # tests have a fixture of the package's name


@pytest.fixture(scope="module")
def small() -> vqzoo.CompressedModel:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=10)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.dim() == 1 and tensor.is_floating_point():
                tensor.uniform_(0.5, 2.0)
            if name == "layer1.0.bn1.weight":
                tensor.fill_(1e-6)  # float16 has five bits for it
            if name == "layer2.0.bn1.bias":
                tensor[0] = 7e4  # beyond float16
    return vqzoo.compress(model, "rtn", layers="all")


def test_files_are_smaller_and_load_in_float32(
    small: vqzoo.CompressedModel, tmp_path: Path
) -> None:
    small.save(tmp_path / "full")
    small.save(tmp_path / "half", rest="float16")
    full, half = (open_artifact(tmp_path / name) for name in ("full", "half"))
    floats = [t for t in full.dense_tensors().values() if t.dtype == "F32"]
    kept = [t for t in half.dense_tensors().values() if t.dtype == "F32"]
    assert len(kept) == 2
    saved = sum(t.nbytes for t in floats) - sum(t.nbytes for t in kept)
    smaller = full.header.file_bytes - half.header.file_bytes
    assert abs(smaller - saved / 2) < 256  # offsets have fewer digits
    expected = dict(small.module.state_dict())
    for key, tensor in load(tmp_path / "half").state_dict().items():
        assert tensor.dtype == expected[key].dtype
        rounded = half.dense_tensors().get(key)
        if rounded is not None and rounded.dtype == "F16":
            assert torch.equal(tensor, expected[key].half().float()), key
        else:
            assert torch.equal(tensor, expected[key]), key


def test_the_given_network_does_not_change(small: vqzoo.CompressedModel, tmp_path: Path) -> None:
    before = {key: tensor.clone() for key, tensor in small.module.state_dict().items()}
    small.save(tmp_path / "a", rest="float16")
    assert all(torch.equal(before[key], t) for key, t in small.module.state_dict().items())


def test_tied_tensors_stay_tied() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    model[2].bias = model[0].bias
    rounded = with_rounded_rest(model, ["0.weight"])
    module: Any = rounded.module
    assert module[2].bias is module[0].bias
    assert module[0].weight is model[0].weight
    assert "0.weight" not in rounded.keys
    assert "1.num_batches_tracked" not in rounded.keys


@given(arrays(np.float32, 8, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_errors_are_bounded_or_the_tensor_is_kept(values: np.ndarray) -> None:
    layer = nn.Linear(1, 8)
    layer.bias = nn.Parameter(torch.from_numpy(values.copy()))
    rounded = with_rounded_rest(layer, ["weight"])
    result = rounded.module.get_parameter("bias").detach().double().numpy()
    largest = float(np.abs(values).max())
    if "bias" in rounded.kept:
        assert 0 < largest < 2.0**-14 or largest > 65504
        assert np.array_equal(result, values.astype(np.float64))
    else:
        errors = np.abs(result - values.astype(np.float64))
        assert errors.max() <= 2.0**-11 * largest
        assert errors.max() == pytest.approx(rounded.error * largest)


def test_a_run_tells_what_it_rounded(vqzoo: Vqzoo, tmp_path: Path) -> None:
    words = ["run", "test_resnet", "--weights", "random", "-m", "rtn", "--layers", "all"]
    plain = vqzoo(*words, "--out", "plain")
    half = vqzoo(*words, "--rest", "float16", "--out", "half")
    assert plain.exit_code == half.exit_code == 0
    records = [
        json.loads((tmp_path / name / "report.json").read_text()) for name in ("plain", "half")
    ]
    assert "rest" not in records[0]
    assert records[1]["rest"]["dtype"] == "float16"
    assert records[1]["rest"]["tensors"] > 50
    assert 0 < records[1]["rest"]["error"] <= 2.0**-11
    assert records[1]["rest"]["kept"] == []
    assert "--rest float16" in records[1]["command"]
    assert records[1]["bytes"]["file"] < records[0]["bytes"]["file"]
    assert "in float16, to within" in half.stdout
    assert "dense tensors" not in plain.stdout


def test_a_budget_stores_the_rest_in_float16(vqzoo: Vqzoo, tmp_path: Path) -> None:
    words = ["run", "test_resnet", "--weights", "random", "--lambda", "1e-4"]
    assert vqzoo(*words, "--out", "half").exit_code == 0
    assert vqzoo(*words, "--rest", "float32", "--out", "full").exit_code == 0
    half, full = (open_artifact(tmp_path / name) for name in ("half", "full"))
    assert {t.dtype for t in half.dense_tensors().values()} == {"F16", "I64"}
    assert {t.dtype for t in full.dense_tensors().values()} == {"F32", "I64"}

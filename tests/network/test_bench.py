"""`vqzoo bench`: every runtime in its own process, side by side."""

import json
import shutil
import statistics
from math import comb
from pathlib import Path

import pytest
import timm
import torch
from typer.testing import CliRunner

import vqzoo
from vqzoo.cli.main import app
from vqzoo.errors import ArtifactError
from vqzoo.network.bench import bench as benching
from vqzoo.network.bench.latency import latency
from vqzoo.numerics.threads import run_tasks, use_threads
from vqzoo.plugin.manager import installed_plugins
from vqzoo.report.card import write_card


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "artifact"
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=7).eval()
    vqzoo.compress(model, "pq", layers="all", k=16, d=4).save(folder)
    return folder


@pytest.fixture(scope="module")
def measured(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with the figures of a benchmark, and what was printed, without other runtimes."""
    folder = tmp_path_factory.mktemp("measured") / "artifact"
    shutil.copytree(artifact, folder)
    words = ["bench", str(folder), "--batches", "3,1", "--repeats", "7", "--threads", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benching, "find_spec", lambda name: None)
        done = CliRunner().invoke(app, [*words, "--json", "--save"])
    assert done.exit_code == 0, done.stderr
    return folder, done.stdout


def test_the_modes_are_measured_and_onnx_is_left_out_with_a_reason(
    measured: tuple[Path, str],
) -> None:
    artifact, printed = measured
    record = json.loads(printed)
    names = [runtime["name"] for runtime in record["runtimes"]]
    assert names == ["dense", "decoded", "codes", "pt2"]
    assert set(record["left_out"]) == {"onnx", "onnx-codes", "pte", "openvino"}
    assert "vqzoo[onnx]" in record["left_out"]["onnx"]
    assert "vqzoo[executorch]" in record["left_out"]["pte"]
    assert record["machine"]["threads"] == 1
    dense, decoded, codes, program = record["runtimes"]
    file = (artifact / "vqzoo.safetensors").stat().st_size
    assert decoded["bytes"] == codes["bytes"] == file < dense["bytes"]
    assert decoded["error"] == 0.0
    assert max(codes["error"], program["error"]) < 1e-4
    assert program["bytes"] < dense["bytes"]
    for runtime in record["runtimes"]:
        assert runtime["load"] > 0
        assert [figures["batch"] for figures in runtime["latencies"]] == [1, 3]
        for figures in runtime["latencies"]:
            assert 0 < figures["low"] <= figures["median"] <= figures["high"]
            if figures["peak"] is not None:
                assert figures["peak"] > runtime["imported"] > 0


@pytest.mark.slow
def test_onnxruntime_takes_part_and_the_table_says_so(tmp_path: Path) -> None:
    """On a network with codes of several methods: of `pq` and `km`, and integers of `rtn`, which
    have runtimes of their own besides those that all networks have."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    vqzoo.register_models()
    model = timm.create_model("vit_mini.fmnist", pretrained=True).eval()
    methods = {
        "*.attn.*": ("pq", {"k": 32, "d": 4}),
        "*.mlp.fc1": ("km", {"k": 16}),
        "*.mlp.fc2": ("rtn", {"format": "int4"}),
    }
    vqzoo.compress(model, methods).save(tmp_path / "mixed")
    few = ["--batches", "1", "--repeats", "6", "--threads", "1", "--save"]
    done = CliRunner().invoke(app, ["bench", str(tmp_path / "mixed"), *few])
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    names = [line.split()[0] for line in lines[1:9]]
    assert names == [
        "dense", "decoded", "codes", "pt2", "onnx", "onnx-codes", "onnx-packed", "onnx-int8"
    ]  # fmt: skip
    assert "torch " in done.stdout
    assert "6 passes" in done.stdout
    record = json.loads((tmp_path / "mixed/bench.json").read_text())
    errors = {runtime["name"]: runtime["error"] for runtime in record["runtimes"]}
    assert max(errors["onnx"], errors["onnx-codes"], errors["onnx-packed"]) < 1e-4
    assert 1e-4 < errors["onnx-int8"] < 0.1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--batches", "1,x"], "--batches takes sizes"),
        (["--batches", "0"], "batch sizes must be"),
        (["--repeats", "5"], "repeats"),
    ],
    ids=["no number", "no image", "too few passes"],
)
def test_unusable_settings_are_refused(options: list[str], reason: str, artifact: Path) -> None:
    done = CliRunner().invoke(app, ["bench", str(artifact), *options])
    assert done.exit_code == 2
    assert reason in done.stderr


@pytest.mark.parametrize("count", [6, 7, 9, 20, 41])
def test_the_interval_of_the_median_holds_95_percent(count: int) -> None:
    times = [float(i) for i in torch.randperm(count, generator=torch.Generator().manual_seed(0))]
    measured = latency(4, times, None)
    assert measured.median == statistics.median(times)
    below = int(measured.low)  # times are 0, 1, ...: as many are smaller
    assert measured.high == count - 1 - below
    missed = [
        2 * sum(comb(count, i) for i in range(at + 1)) / 2**count for at in (below, below + 1)
    ]
    assert missed[0] <= 0.05 < missed[1]


def test_threads_that_help_are_in_inference_mode_too() -> None:
    with torch.inference_mode(), use_threads(2):
        rows = torch.zeros(64, 8)
        run_tasks(lambda row: rows[row].add_(row), range(64))
    assert rows[:, 0].tolist() == list(range(64))


def test_saved_figures_are_on_the_card_with_the_machine(
    measured: tuple[Path, str], tmp_path: Path
) -> None:
    folder = tmp_path / "artifact"
    shutil.copytree(measured[0], folder)
    record = json.loads((folder / "bench.json").read_text())
    assert record == json.loads(measured[1])
    card = (folder / "README.md").read_text()
    assert "none was measured" not in card
    costs = card.partition("## What it costs to run")[2].partition("\n## ")[0]
    assert "1 thread" in costs
    for runtime in record["runtimes"]:
        (row,) = [line for line in costs.splitlines() if line.startswith(f"| `{runtime['name']}`")]
        assert f"| {1e3 * runtime['latencies'][0]['median']:.3g} ms (" in row

    record["artifact_bytes"] += 1  # the benchmark of another artifact
    (folder / "bench.json").write_text(json.dumps(record))
    write_card(folder, installed_plugins())
    assert "none was measured" in (folder / "README.md").read_text()
    (folder / "bench.json").write_text('{"artifact": 3}')
    with pytest.raises(ArtifactError, match=r"bench\.json is malformed at"):
        write_card(folder, installed_plugins())


def test_figures_are_kept_in_folders_alone() -> None:
    done = CliRunner().invoke(app, ["bench", "org/name", "--save"])
    assert done.exit_code == 2
    assert "which org/name is not" in done.stderr

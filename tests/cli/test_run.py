"""`vqzoo run`: what it writes, prints, refuses and resumes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import vqzoo
from vqzoo.cli.main import app
from vqzoo.errors import UsageError
from vqzoo.progress import SilentWatcher
from vqzoo.runs import compress_layers as compressing
from vqzoo.runs.recipe import make_recipe
from vqzoo.runs.run import run
from vqzoo.runs.workspace import Workspace, saved_layer

MODEL = ["run", "test_resnet", "--weights", "random", "--layers", "all"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_record_is_report_json_and_counts_true_bytes(folder: Path) -> None:
    printed = json.loads(invoke(*MODEL, "-m", "pq", "-o", "k=16", "--out", "a", "--json"))
    assert printed == json.loads((folder / "a/report.json").read_text())
    assert set(printed) >= {
        "model", "weights", "method", "options", "seed", "bytes", "ratio", "accuracy", "layers",
        "skipped", "seconds", "command", "versions",
    }  # fmt: skip
    assert printed["bytes"]["file"] == (folder / "a/vqzoo.safetensors").stat().st_size
    stored = sum(row["bytes"] for row in printed["layers"])
    weights = sum(torch.Size(row["shape"]).numel() for row in printed["layers"])
    assert printed["ratio"]["layers"] == pytest.approx(4 * weights / stored)
    assert printed["weights"] == "random"
    assert printed["accuracy"] is None
    assert set(printed["seconds"]) == {"compress", "evaluate", "total"}


def test_the_same_command_writes_the_same_bytes(folder: Path) -> None:
    for name in ("a", "b"):
        invoke(*MODEL, "-m", "rq", "-o", "k=8", "--seed", "3", "--out", name)
    for file in ("vqzoo.safetensors", "config.json"):
        assert (folder / "a" / file).read_bytes() == (folder / "b" / file).read_bytes()


def test_file_modes_follow_the_umask(folder: Path) -> None:
    Path("mine.txt").write_text("mine")
    invoke(*MODEL, "-m", "binary", "--out", "a", "--dense")
    modes = {path.stat().st_mode for path in [Path("mine.txt"), *Path("a").iterdir()]}
    assert len(modes) == 1


def test_another_seed_writes_other_codes(folder: Path) -> None:
    for seed in ("3", "4"):
        invoke(*MODEL, "-m", "pq", "-o", "k=8", "--seed", seed, "--out", seed)
    first, second = (folder / s / "vqzoo.safetensors" for s in ("3", "4"))
    assert first.read_bytes() != second.read_bytes()


def test_dense_writes_weights_that_plain_timm_loads(folder: Path) -> None:
    import timm

    invoke(*MODEL, "-m", "km", "-o", "k=16", "--out", "a", "--dense")
    plain = timm.create_model("local-dir:a", pretrained=True).eval()
    image = torch.randn(2, 3, *plain.pretrained_cfg["input_size"][1:])
    with torch.no_grad():
        assert torch.equal(plain(image), vqzoo.load("a")(image))


def test_the_default_folder_names_model_method_and_request(folder: Path) -> None:
    invoke(*MODEL, "-m", "binary")
    (artifact,) = folder.iterdir()
    assert artifact.name.startswith("test_resnet-binary-")
    result = CliRunner().invoke(app, [*MODEL, "-m", "binary"])
    assert result.exit_code == 2
    assert "--force" in result.stderr
    invoke(*MODEL, "-m", "binary", "--force")
    assert [path.name for path in folder.iterdir()] == [artifact.name]


def test_a_folder_that_is_not_an_artifact_is_never_replaced(folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine/thesis.tex").write_text("years of work")
    result = CliRunner().invoke(app, [*MODEL, "-m", "binary", "--out", "mine", "--force"])
    assert result.exit_code == 2
    assert [path.name for path in (folder / "mine").iterdir()] == ["thesis.tex"]


class StopsAfter(SilentWatcher):
    """Interrupts the run when layer `count` begins."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.said: list[str] = []

    def layer_started(self, name: str, index: int, total: int) -> None:
        if index == self.count:
            raise KeyboardInterrupt

    def say(self, text: str) -> None:
        self.said.append(text)


def test_an_interrupted_run_resumes_and_ends_in_the_same_bytes(folder: Path) -> None:
    recipe = make_recipe(
        {"model": "test_resnet", "weights": "random", "method": "pq", "layers": ("all",)}
    )
    run(recipe, SilentWatcher(), out=Path("whole"))
    with pytest.raises(KeyboardInterrupt):
        run(recipe, StopsAfter(3), out=Path("broken"))
    assert not Path("broken").exists()
    saved = sorted(Path("broken.partial/layers").iterdir())
    assert len(saved) == 3
    saved[1].write_bytes(saved[1].read_bytes()[:-5])  # a power failure during the write
    times = saved[0].stat().st_mtime_ns
    again = StopsAfter(99)
    with pytest.raises(UsageError, match="belongs to another run"):
        run(recipe.model_copy(update={"seed": 1}), again, out=Path("broken"))
    assert saved[0].stat().st_mtime_ns == times
    run(recipe, again, out=Path("broken"))
    assert "Resuming" in again.said[0]
    assert not Path("broken.partial").exists()
    for file in ("vqzoo.safetensors", "config.json"):
        assert Path("whole", file).read_bytes() == Path("broken", file).read_bytes()


def test_a_calibrated_run_resumes_and_reads_saved_layers_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(
        {
            "model": "alexnet_mini.fmnist", "method": "km", "options": {"k": 4}, "images": 2,
            "layers": ("features.8", "features.11", "classifier.6"),
            "calibrate": "fmnist", "calibration_images": 16,
        }
    )  # fmt: skip
    run(recipe, SilentWatcher(), out=Path("whole"))
    with pytest.raises(KeyboardInterrupt):
        run(recipe, StopsAfter(2), out=Path("broken"))
    saved = sorted(Path("broken.partial/layers").iterdir())
    saved[1].write_bytes(saved[1].read_bytes()[:-5])
    read: list[int] = []

    def reading(work: Workspace, index: int) -> Any:
        read.append(index)
        return saved_layer(work, index)

    monkeypatch.setattr(compressing, "saved_layer", reading)
    run(recipe, SilentWatcher(), out=Path("broken"))
    assert len(saved) == 2
    assert read == [0, 1, 2]
    for file in ("vqzoo.safetensors", "config.json"):
        assert Path("whole", file).read_bytes() == Path("broken", file).read_bytes()


def test_rules_choose_methods_by_layer(folder: Path) -> None:
    record = json.loads(
        invoke(
            "run", "test_resnet", "--weights", "random", "-m", "pq", "-o", "k=8", "--json",
            "--rule", "layer*=km:k=4", "--rule", "layer2.*=rtn:format=int4,per=tensor",
            "--layers", "dense,!layer1.0.conv1",
        )
    )  # fmt: skip
    methods = {row["name"]: row["method"] for row in record["layers"]}
    assert methods["fc"] == "pq"
    assert methods["layer1.0.conv2"] == "km"
    assert methods["layer2.0.conv1"] == "rtn"
    assert record["method"] == "mixed"
    assert "excluded" in record["skipped"]["layer1.0.conv1"]
    assert "conv1.0" in record["skipped"]
    assert vqzoo.load(next(folder.iterdir())) is not None


def test_the_command_line_takes_precedence_over_a_recipe_file(folder: Path) -> None:
    Path("r.yaml").write_text(
        "model: test_resnet\nweights: random\nmethod: km\noptions: {k: 4}\nlayers: [all]\n"
        "rules:\n- {layers: fc, method: rtn, options: {format: int8}}\n"
    )
    record = json.loads(invoke("run", "--recipe", "r.yaml", "--seed", "7", "--json"))
    assert record["seed"] == 7
    assert {row["method"] for row in record["layers"]} == {"km", "rtn"}
    again = record["command"].split()[1:]
    assert "--rule" in again


def test_the_command_of_the_record_makes_the_same_artifact(folder: Path) -> None:
    import shlex

    record = json.loads(
        invoke(*MODEL, "-m", "pq", "--ratio", "8", "--rule", "fc=km:k=4", "--out", "a", "--json")
    )
    invoke(*shlex.split(record["command"])[1:], "--out", "b")
    first, second = Path("a/vqzoo.safetensors"), Path("b/vqzoo.safetensors")
    assert first.read_bytes() == second.read_bytes()


def test_clamped_options_are_reported_and_recorded(folder: Path) -> None:
    result = CliRunner().invoke(app, [*MODEL, "-m", "pq", "-o", "k=256", "-o", "d=4", "--json"])
    assert result.exit_code == 0, result.stderr
    line = "k=256 is more than the 96 sub-vectors: k=96"
    assert f"conv1.0: {line}" in result.stderr
    row = json.loads(result.stdout)["layers"][0]
    assert line in row["notes"]
    assert row["options"]["k"] == 96


def test_a_layer_that_would_not_shrink_stays_dense_with_a_reason(folder: Path) -> None:
    result = CliRunner().invoke(app, [*MODEL, "-m", "svd", "-o", "rank=48", "--json"])
    assert result.exit_code == 0, result.stderr
    reason = json.loads(result.stdout)["skipped"]["layer3.0.conv1"]
    assert "would not make it smaller" in reason
    assert f"layer3.0.conv1: stays dense: {reason}" in result.stderr


def test_a_run_that_compresses_nothing_fails_and_leaves_nothing(folder: Path) -> None:
    result = CliRunner().invoke(
        app, [*MODEL[:4], "--layers", "layer3.0.conv1", "-m", "svd", "-o", "rank=48"]
    )
    assert result.exit_code == 1
    assert "no layer could be compressed" in result.stderr
    assert list(folder.iterdir()) == []

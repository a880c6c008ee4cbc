"""`vqzoo compare --task retrieval`: what it prints, draws, resumes and refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from vqzoo.cli.main import app
from vqzoo.comparison import retrieval as compare_retrieval
from vqzoo.evaluation.retrieval import BesideDense, beside_dense

MINI = "alexnet_mini.fmnist"
COMPARE = ["compare", MINI, "--layers", "conv", "--ratios", "16", "--images", "60", "--out", "c"]
RETRIEVAL = [*COMPARE, "--task", "retrieval"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_point_equals_what_eval_measures() -> None:
    comparison = json.loads(printed(*RETRIEVAL, "--methods", "km,binary", "--json"))
    assert comparison == json.loads(Path("c/retrieval.json").read_text())
    assert [point["method"] for point in comparison["points"]] == ["km", "binary"]
    assert (comparison["model"], comparison["data"], comparison["images"]) == (MINI, "fmnist", 60)
    for point in comparison["points"]:
        artifact = str(Path("c", point["folder"]))
        arguments = ["eval", artifact, "--task", "retrieval", "--images", "60", "--reference", MINI]
        alone: dict[str, Any] = json.loads(printed(*arguments, "--json"))
        reference = alone["reference"]
        assert point["map"] == alone["map"]
        assert comparison["dense_map"] == reference["map"]
        assert {"map": point["change"], "ci95": point["ci95"]} == reference["difference"]
        assert point["asymmetric_map"] == reference["asymmetric"]["map"]
        report = json.loads(Path(artifact, "report.json").read_text())
        assert point["ratio_layers"] == report["ratio"]["layers"]
    assert Image.open("c/retrieval.png").size[1] == 600

    table = printed(*RETRIEVAL, "--methods", "km,binary").splitlines()
    assert table[0].split() == ["method", "layers", "file", "mAP", "change", "asymmetric", "change"]
    point = comparison["points"][1]
    assert f"{point['map']:.2f}%" in table[2]
    assert f"{point['change']:+.2f} ± {point['ci95']:.2f}" in table[2]
    assert f"dense: {comparison['dense_map']:.2f}% on 60 images of fmnist" in table


class Searches:
    """Counts the points that are measured, and interrupts one of them."""

    def __init__(self, interrupt_at: int) -> None:
        self.count = 0
        self.interrupt_at = interrupt_at

    def __call__(self, *arguments: Any, **named: Any) -> BesideDense:
        self.count += 1
        if self.count == self.interrupt_at:
            raise KeyboardInterrupt
        return beside_dense(*arguments, **named)


def test_an_interrupted_comparison_is_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    searches = Searches(interrupt_at=2)
    monkeypatch.setattr(compare_retrieval, "beside_dense", searches)
    broken = CliRunner().invoke(app, [*RETRIEVAL, "--methods", "binary,rtn"])
    assert broken.exit_code == 130
    assert searches.count == 2
    before = Path("c/binary-16x/vqzoo.safetensors").stat().st_mtime_ns
    whole = json.loads(printed(*RETRIEVAL, "--methods", "binary,rtn", "--json"))
    assert searches.count == 3
    assert [point["method"] for point in whole["points"]] == ["binary", "rtn"]
    assert Path("c/binary-16x/vqzoo.safetensors").stat().st_mtime_ns == before
    assert json.loads(printed(*RETRIEVAL, "--methods", "binary,rtn", "--json")) == whole
    assert searches.count == 3
    # Another artifact in the same folder is measured again.
    other = [word.replace("conv", "features.4") for word in RETRIEVAL]
    printed(*other, "--methods", "binary", "--force")
    assert searches.count == 4


def test_artifacts_of_an_accuracy_comparison_are_reused() -> None:
    printed(*COMPARE, "--methods", "binary")
    artifact = Path("c/binary-16x/vqzoo.safetensors")
    before = artifact.stat().st_mtime_ns
    printed(*RETRIEVAL, "--methods", "binary")
    assert artifact.stat().st_mtime_ns == before
    assert Path("c/compare.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--data", "imagefolder:loose"], "imagefolder:loose has no labels"),
        (["--methods", "kmm"], "did you mean km"),
        (["--ratios", "0.5"], "ratio"),
    ],
)
def test_invalid_requests_are_refused_before_any_work(arguments: list[str], says: str) -> None:
    Path("loose").mkdir()
    Image.fromarray(torch.zeros(28, 28, dtype=torch.uint8).numpy()).save("loose/a.png")
    result = CliRunner().invoke(app, [*RETRIEVAL, "--methods", "binary", *arguments])
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert result.stdout == ""
    assert not Path("c").exists()


def test_a_model_without_embedded_data() -> None:
    arguments = [
        "compare",
        "test_resnet",
        "--weights",
        "random",
        "--task",
        "retrieval",
        "--out",
        "c",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "give --data" in result.stderr

"""`vqzoo compare --task retrieval`: what it prints and draws, takes up again and refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from vqzoo.cli.main import app
from vqzoo.comparison import retrieval as compare_retrieval

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


def test_every_point_is_what_eval_says_of_its_artifact() -> None:
    found = json.loads(printed(*RETRIEVAL, "--methods", "km,binary", "--json"))
    assert found == json.loads(Path("c/retrieval.json").read_text())
    assert [point["method"] for point in found["points"]] == ["km", "binary"]
    assert (found["model"], found["data"], found["images"]) == (MINI, "fmnist", 60)
    for point in found["points"]:
        artifact = str(Path("c", point["folder"]))
        asked = ["eval", artifact, "--task", "retrieval", "--images", "60", "--reference", MINI]
        alone: dict[str, Any] = json.loads(printed(*asked, "--json"))
        reference = alone["reference"]
        assert point["map"] == alone["map"]
        assert found["dense_map"] == reference["map"]
        assert {"map": point["change"], "ci95": point["ci95"]} == reference["difference"]
        assert point["asymmetric_map"] == reference["asymmetric"]["map"]
        report = json.loads(Path(artifact, "report.json").read_text())
        assert point["ratio_layers"] == report["ratio"]["layers"]
    assert Image.open("c/retrieval.png").size[1] == 600

    table = printed(*RETRIEVAL, "--methods", "km,binary").splitlines()
    assert table[0].split() == ["method", "layers", "file", "mAP", "change", "asymmetric", "change"]
    point = found["points"][1]
    assert f"{point['map']:.2f}%" in table[2]
    assert f"{point['change']:+.2f} ± {point['ci95']:.2f}" in table[2]
    assert f"dense: {found['dense_map']:.2f}% on 60 images of fmnist" in table


def test_it_is_taken_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []
    measure = compare_retrieval._point

    def counted(found: Any, *rest: Any) -> Any:
        measured.append(found.folder)
        if found.folder == "rtn-16x":
            raise KeyboardInterrupt
        return measure(found, *rest)

    monkeypatch.setattr(compare_retrieval, "_point", counted)
    broken = CliRunner().invoke(app, [*RETRIEVAL, "--methods", "binary,rtn"])
    assert broken.exit_code == 130
    assert measured == ["binary-16x", "rtn-16x"]
    monkeypatch.setattr(
        compare_retrieval, "_point", lambda *all_: measured.append("again") or measure(*all_)
    )
    before = Path("c/binary-16x/vqzoo.safetensors").stat().st_mtime_ns
    whole = json.loads(printed(*RETRIEVAL, "--methods", "binary,rtn", "--json"))
    assert measured[2:] == ["again"]
    assert [point["method"] for point in whole["points"]] == ["binary", "rtn"]
    assert Path("c/binary-16x/vqzoo.safetensors").stat().st_mtime_ns == before
    assert json.loads(printed(*RETRIEVAL, "--methods", "binary,rtn", "--json")) == whole
    assert measured[3:] == []
    # Another artifact in the same place is measured anew.
    printed(*RETRIEVAL, "--methods", "binary", "--layers", "features.4", "--force")
    assert measured[3:] == ["again"]


def test_accuracys_artifacts_serve_again() -> None:
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
def test_what_makes_no_sense_is_told_before_any_work(arguments: list[str], says: str) -> None:
    Path("loose").mkdir()
    Image.fromarray(torch.zeros(28, 28, dtype=torch.uint8).numpy()).save("loose/a.png")
    result = CliRunner().invoke(app, [*RETRIEVAL, "--methods", "binary", *arguments])
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert result.stdout == ""
    assert not Path("c").exists()


def test_a_model_without_data_of_its_own() -> None:
    asked = ["compare", "test_resnet", "--weights", "random", "--task", "retrieval", "--out", "c"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 2
    assert "give --data" in result.stderr

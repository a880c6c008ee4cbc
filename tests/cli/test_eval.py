"""`vqzoo eval`: accuracy and retrieval, alone and beside a reference."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import vqzoo
from vqzoo.cli.main import app
from vqzoo.data import fmnist
from vqzoo.network import by_name

MINI = "alexnet_mini.fmnist"
RETRIEVAL = ["--task", "retrieval"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def measured(*arguments: str) -> dict[str, Any]:
    return json.loads(printed("eval", *arguments, "--json"))


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["eval", *arguments])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line.removeprefix("error: ")


def images(root: str, per_class: int, classes: list[int]) -> Path:
    """Embedded images in class folders named after their number."""
    split = fmnist.test_split()
    for label in classes:
        Path(root, f"class {label}").mkdir(parents=True)
        for i in torch.nonzero(split.labels == label).flatten()[:per_class].tolist():
            picture = Image.fromarray(np.asarray(split.images[i, 0]))
            picture.save(Path(root, f"class {label}", f"{i}.png"))
    return Path(root)


def binary() -> str:
    printed("run", MINI, "-m", "binary", "--images", "1", "--out", "b")
    return "b"


def test_an_artifact_beside_its_dense_model() -> None:
    arguments = [binary(), "--images", "120", "--reference", MINI]
    result = measured(*arguments, *RETRIEVAL)
    dense = measured(MINI, "--images", "120", *RETRIEVAL)
    alone = measured("b", "--images", "120", *RETRIEVAL)
    assert "reference" not in alone
    assert alone == {key: value for key, value in result.items() if key != "reference"}
    reference = result["reference"]
    assert {key: reference[key] for key in dense} == dense
    assert (dense["images"], dense["queries"], dense["data"]) == (120, 120, "fmnist")
    change = reference["difference"]
    assert change["map"] == pytest.approx(result["map"] - dense["map"])
    assert change["ci95"] > 0
    asymmetric = reference["asymmetric"]
    assert asymmetric["difference"]["map"] == pytest.approx(asymmetric["map"] - dense["map"])
    assert asymmetric["map"] not in (result["map"], dense["map"])

    lines = printed("eval", *arguments, *RETRIEVAL).splitlines()
    assert f"b: mAP {result['map']:.2f}%" in lines[0]
    assert "120 queries to 120 images of fmnist" in lines[0]
    assert f"{MINI}: mAP {dense['map']:.2f}%" in lines[1]
    assert f"{change['map']:+.2f} ± {change['ci95']:.2f} points" in lines[1]
    assert f"mAP {asymmetric['map']:.2f}%" in lines[2]


def test_accuracy_beside_a_reference() -> None:
    arguments = [binary(), "--images", "200", "--reference", MINI]
    result = measured(*arguments)
    assert result["top1"] == vqzoo.evaluate(vqzoo.load("b"), images=200).top1
    assert "reference" not in measured("b", "--images", "200")
    dense = measured(MINI, "--images", "200")
    assert {key: result["reference"][key] for key in dense} == dense
    assert result["reference"]["difference"]["top1"] == pytest.approx(
        result["top1"] - dense["top1"]
    )
    lines = printed("eval", *arguments).splitlines()
    assert f"{MINI}: top-1 {dense['top1']:.2f}%; difference " in lines[1]
    assert measured("b", "--images", "1", "--reference", MINI)["reference"]["difference"] == {
        "top1": 0.0,
        "ci95": None,
    }


def test_an_artifact_runs_from_its_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [binary(), "--images", "60"]
    decoded = measured(*arguments)
    modes: list[str] = []
    plain = by_name.load

    def load(name: str, mode: Any, plugins: Any) -> torch.nn.Module:
        modes.append(mode)
        return plain(name, mode=mode, plugins=plugins)

    monkeypatch.setattr(by_name, "load", load)
    assert measured(*arguments, "--mode", "codes") == decoded
    assert modes == ["codes"]
    assert "only artifacts run from codes" in refused(MINI, "--mode", "codes")


def test_data_may_have_other_classes_than_the_model() -> None:
    """Three of ten classes do not fit the classifier, but can be searched for."""
    data = f"imagefolder:{images('three', 6, [0, 1, 5])}"
    result = measured(MINI, *RETRIEVAL, "--data", data)
    assert (result["images"], result["queries"], result["data"]) == (18, 18, "imagefolder:three")
    assert result["map"] > 80
    assert "3 class folders, but the model has 10" in refused(MINI, "--data", data)
    # Features of another width cannot be searched for in the reference's database.
    printed("run", "test_resnet", "--weights", "random", "-m", "km", "-o", "k=4", "--out", "r")
    other = measured("r", *RETRIEVAL, "--data", data, "--reference", MINI)
    assert other["reference"]["map"] == result["map"]
    assert other["reference"]["asymmetric"] is None


def test_a_checkpoint_belongs_to_the_dense_model() -> None:
    binary()
    torch.save(vqzoo.load("b").state_dict(), "same.pth")
    arguments = ["b", *RETRIEVAL, "--images", "60", "--reference", MINI, "--checkpoint", "same.pth"]
    result = measured(*arguments)
    assert result["reference"]["map"] == result["map"]
    assert result["reference"]["difference"] == {"map": 0.0, "ci95": 0.0}


def test_data_that_cannot_be_searched_is_refused() -> None:
    images("one", 3, [4])
    assert "3 images of imagefolder:one are all of one class" in refused(
        MINI, *RETRIEVAL, "--data", "imagefolder:one"
    )
    assert "imagefolder:class 4 has no labels" in refused(
        MINI, *RETRIEVAL, "--data", "imagefolder:one/class 4"
    )
    assert "no two of 1 images of fmnist" in refused(MINI, *RETRIEVAL, "--images", "1")
    assert "does not exist" in refused(MINI, *RETRIEVAL, "--reference", "not/here/either")

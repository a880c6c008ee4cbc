"""`vqzoo compare` and `vqzoo zoo build` make the same artifacts in other processes."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vqzoo.artifact.files import sha256_file
from vqzoo.artifact.schema import WEIGHTS_FILE
from vqzoo.cli.main import app

pytestmark = pytest.mark.slow

RECIPE = "model: test_resnet\nweights: random\nmethod: {}\noptions: {{k: 4}}\nlayers: [fc]\n"
TWO_WORKERS = ("--executor", "local:2", "--threads", "1")
ONE_WORKER = ("--executor", "local:1", "--threads", "1")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(*words: str) -> Any:
    return CliRunner().invoke(app, words)


def artifacts(folder: str) -> dict[str, str]:
    return {file.parent.name: sha256_file(file) for file in Path(folder).glob(f"*/{WEIGHTS_FILE}")}


def test_compare_has_the_same_points() -> None:
    arguments = ("compare", "test_resnet", "--weights", "random", "--methods", "km,svd,prune",
                 "--ratios", "8,16", "--json")  # fmt: skip
    here = call(*arguments, "--out", "here")
    there = call(*arguments, "--out", "there", *TWO_WORKERS)
    assert there.exit_code == here.exit_code == 0, there.stderr
    assert json.loads(there.stdout) == json.loads(here.stdout)
    assert artifacts("there") == artifacts("here")
    assert len(artifacts("there")) >= 4
    assert there.stderr.count(" is left out: ") == here.stderr.count(" is left out: ")
    wrong = call(*arguments, "--out", "there", "--seed", "1", *ONE_WORKER)
    assert wrong.exit_code == 2
    assert "--force replaces it" in wrong.stderr


def test_a_zoo_has_the_same_artifacts_and_failures() -> None:
    Path("recipes").mkdir()
    for name, method in (("a", "km"), ("c", "rq")):
        Path(f"recipes/{name}.yaml").write_text(RECIPE.format(method))
    Path("recipes/b.yaml").write_text(RECIPE.format("km") + "model_args: {depth: 900}\n")
    arguments = ("zoo", "build", "--recipes", "recipes")
    here = call(*arguments, "--out", "here")
    away = call(*arguments, "--out", "away", *ONE_WORKER)
    assert away.exit_code == here.exit_code == 1
    assert away.stdout.replace("away/", "here/") == here.stdout
    assert set(artifacts("away")) == {"a", "c"}
    assert artifacts("away") == artifacts("here")
    assert "depth" in Path("away/b.log").read_text()

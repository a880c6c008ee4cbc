"""`vqzoo zoo build --push-to` pushes each artifact to a repository of its own."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from vqzoo.cli.main import app
from vqzoo.testing.hub.server import Fault, HubServer

RECIPE = "model: test_resnet\ncheckpoint: {}\nmethod: km\noptions: {{k: {}}}\nlayers: [fc]\n"


def test_building_and_publishing_many(
    hub: HubServer, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipes").mkdir()
    weights = made.parent / "mine.safetensors"
    Path("recipes/a.yaml").write_text(RECIPE.format(weights, 4))
    Path("recipes/b.yaml").write_text(RECIPE.format(weights, 8) + "repo: other-name\n")
    line = ["zoo", "build", "--recipes", "recipes", "--out", "made", "--push-to", "org"]
    hub.faults.add(Fault("error", "POST", "/api/models/org/a/commit/", status=500))
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 1
    assert hub.files("org/a") == {}
    assert "vqzoo.safetensors" in hub.files("org/other-name")
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.stderr
    assert hub.files("org/a")["config.json"] == Path("made/a/config.json").read_bytes()
    Path("recipes/c.yaml").write_text("model: test_resnet\nweights: random\nmethod: km\n")
    done = CliRunner().invoke(app, line)
    assert (done.exit_code, "random weights" in done.stderr) == (2, True)

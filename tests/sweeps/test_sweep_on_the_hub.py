"""A sweep into a repository of the Hub: few commits, the same bytes, and refusals in one line."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
from huggingface_hub import create_repo, upload_folder
from sweeping import ONE_WORKER, TWO_WORKERS, Swept
from timm.models import save_for_hf
from typer.testing import CliRunner, Result

from vqzoo.artifact.schema import WEIGHTS_FILE
from vqzoo.cli.main import app
from vqzoo.testing.hub.client import use_hub
from vqzoo.testing.hub.faults import Fault
from vqzoo.testing.hub.server import HubServer

pytestmark = pytest.mark.slow

GRID = """
models: [mobilenet_mini.fmnist]
methods: [km, rtn]
ratios: [6]
layers: [largest:1]
images: 40
"""
REPO = "datasets/org/results"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chart_script: Path) -> Iterator[HubServer]:
    """A Hub with an empty data set, for this process and for the workers that it starts."""
    with HubServer() as server:
        use_hub(server, tmp_path / "hf", monkeypatch)
        for name, value in server.environment(tmp_path / "hf").items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("VQZOO_CACHE", str(tmp_path / "cache"))
        (tmp_path / "cache").mkdir()
        shutil.copy(chart_script, tmp_path / "cache")
        create_repo("org/results", repo_type="dataset")
        yield server


def sweep(folder: Path, out: str, *arguments: str) -> Result:
    (folder / "grid.yaml").write_text(GRID)
    words = ["sweep", str(folder / "grid.yaml"), "--out", out]
    return CliRunner().invoke(app, [*words, *ONE_WORKER, *arguments])


def commits(hub: HubServer) -> int:
    """How many there are beside the one that made the repository."""
    return len(hub.repos[REPO].commits) - 1


@pytest.mark.usefixtures("no_workers")
def test_a_sweep_into_a_repository(hub: HubServer, swept: Swept, tmp_path: Path) -> None:
    url = f"hf://{REPO}/one"
    done = sweep(tmp_path, url, "--limit", "1")
    assert done.exit_code == 0, done.output
    assert "2 cells: 1 done, 1 left" in done.stdout
    assert commits(hub) == 4  # a cell with its log, the dense evaluation, the table, the page

    hub.faults.add(Fault("error", "POST", "/commit/", status=403))
    done = sweep(tmp_path, url)
    assert "1 done, 1 failed" in done.stdout, done.output
    assert f"{url}: your token may not do this" in done.stdout
    assert commits(hub) == 5  # the table; the page has not changed

    hub.faults.add(Fault("error", "POST", "/commit/", status=429, times=2))  # it tries again
    done = sweep(tmp_path, url, "--retry-failed")
    assert done.exit_code == 0, done.output
    assert f"page: {url}/report.html" in done.stdout
    assert commits(hub) == 8
    files = hub.files(REPO)
    logs = [data for name, data in files.items() if name.startswith("one/logs/")]
    # A log that goes along cannot know whether it arrives.
    assert all(b" uploading to hf://" in log.splitlines()[-1] for log in logs)
    # The cell that was refused was kept where it ran.
    assert [b"finished by an earlier call" in log for log in logs].count(True) == 1

    weights = {name.split("/")[-2]: files[name] for name in files if name.endswith(WEIGHTS_FILE)}
    assert len(weights) == 2
    for cell, data in weights.items():
        assert data == (swept.out / "cells" / cell / WEIGHTS_FILE).read_bytes()
    again = sweep(tmp_path, url, "--dry-run")
    assert "2 cells: 2 settled, 0 to run" in again.stdout
    table = CliRunner().invoke(app, ["results", url, "--json"])
    assert {row["state"] for row in json.loads(table.stdout)} == {"done"}
    page = tmp_path / "page.html"
    shown = CliRunner().invoke(app, ["report", url, "--out", str(page)])
    assert "2 artifacts" in shown.stdout, shown.output
    assert page.read_bytes() == files["one/report.html"]


def test_refusals_of_the_hub_stop_a_sweep_before_it_runs(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusal(url: str) -> str:
        done = sweep(tmp_path, url)
        assert done.exit_code in (1, 2)
        assert "Traceback" not in done.output
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert line.startswith(f"error: {url}: ")
        return line

    assert "no datasets/org/nothing on the Hub" in refusal("hf://datasets/org/nothing/x")
    assert "the repository has no such branch" in refusal(f"hf://{REPO}@nothing/x")
    url = f"hf://{REPO}/x"
    hub.faults.add(Fault("error", "GET", "/api/datasets/", status=429, times=99))
    assert "limits requests and commits" in refusal(url)
    hub.faults.clear()
    monkeypatch.setenv("HF_TOKEN", hub.read_token)
    assert "your token may not do this" in refusal(url)
    monkeypatch.setenv("HF_TOKEN", "hf_unknown")
    assert "the Hub rejects this token" in refusal(url)
    assert commits(hub) == 0
    assert not (tmp_path / "cache/sweeps").exists()


def test_processes_that_start_together_fetch_weights_once(hub: HubServer, tmp_path: Path) -> None:
    save_for_hf(timm.create_model("test_vit"), tmp_path / "timm", safe_serialization=True)
    create_repo("org/small")
    upload_folder(repo_id="org/small", folder_path=tmp_path / "timm")
    grid = {"models": ["hf-hub:org/small"], "methods": ["rtn", "svd"], "layers": ["head"]}
    (tmp_path / "grid.yaml").write_text(json.dumps(grid))  # JSON is YAML
    hub.exchanges.clear()
    words = ["sweep", str(tmp_path / "grid.yaml"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, *TWO_WORKERS])
    assert "2 cells: 2 done" in done.stdout, done.output
    downloads = [
        exchange
        for exchange in hub.exchanges
        if exchange.method == "GET" and exchange.target.endswith("/model.safetensors")
    ]
    assert len(downloads) == 1

"""`vqzoo sweep --out URL`: the same bytes as in a folder, and nothing is lost with a machine."""

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sweeping import ONE_WORKER, Swept
from typer.testing import CliRunner, Result

from vqzoo.artifact.files import sha256_file
from vqzoo.artifact.schema import WEIGHTS_FILE
from vqzoo.cli.main import app

pytestmark = pytest.mark.slow

# Cells of the grid in sweeping.py.
GRID = """
models: [mobilenet_mini.fmnist]
methods: [km, rtn]
ratios: [6]
layers: [largest:1]
images: 40
include:
- {model: vit_mini.fmnist, method: rtn, calibrate: fmnist, calibration_images: 16, layers: [head]}
- {model: vit_mini.fmnist, method: km, layers: [nowhere]}
"""
CELLS = 4


def sweep(folder: Path, *arguments: str) -> Result:
    (folder / "grid.yaml").write_text(GRID)
    words = ["sweep", str(folder / "grid.yaml"), "--out", f"file://{folder}/store/sweep"]
    return CliRunner().invoke(app, [*words, *ONE_WORKER, *arguments])


def rows(place: str) -> dict[str, dict[str, Any]]:
    done = CliRunner().invoke(app, ["results", place, "--json"])
    assert done.exit_code == 0, done.stderr
    return {row["cell"]: row for row in json.loads(done.stdout)}


def artifacts(out: Path) -> dict[str, str]:
    return {file.parent.name: sha256_file(file) for file in out.glob(f"cells/*/{WEIGHTS_FILE}")}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, chart_script: Path) -> Path:
    """A folder with a sweep's store, and the cache of the machine that ran it."""
    folder = tmp_path_factory.mktemp("stored")
    (folder / "cache").mkdir()
    shutil.copy(chart_script, folder / "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VQZOO_CACHE", str(folder / "cache"))
        done = sweep(folder)
    assert done.exit_code == 1, done.output  # one cell cannot run
    assert f"{CELLS} cells: {CELLS - 1} done, 1 failed" in done.stdout
    return folder


@pytest.fixture
def folder(
    stored: Path, chart_script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of the store, on a machine whose cache holds nothing of it."""
    shutil.copytree(stored / "store", tmp_path / "store")
    monkeypatch.setenv("VQZOO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    shutil.copy(chart_script, tmp_path / "cache")
    return tmp_path


def test_the_store_has_what_a_folder_would(stored: Path, swept: Swept) -> None:
    out = stored / "store/sweep"
    assert artifacts(out).items() < artifacts(swept.out).items()
    assert len(artifacts(out)) == CELLS - 1
    assert (out / "report.html").is_file()
    table, local = rows(f"file://{out}"), rows(str(swept.out))
    timed = {"seconds": None}
    assert len(table) == CELLS
    for name, row in table.items():
        assert row | timed == local[name] | timed
    assert all((out / row["log"]).read_text().count("vqzoo run") == 1 for row in table.values())
    assert {path.name for path in out.iterdir()} == {
        "cells", "logs", "shared", "report.html", "results.sqlite"
    }  # fmt: skip
    logs = "".join(path.read_text() for path in (out / "logs").iterdir())
    assert logs.count("evaluating the dense model") == 2  # networks
    assert logs.count("calibrating on") == 1
    assert not list((stored / "cache").glob("sweeps/*/cells/*"))  # nothing stays on the machine


@pytest.mark.usefixtures("no_workers")
def test_another_machine_does_what_is_missing(folder: Path) -> None:
    out = folder / "store/sweep"
    before = artifacts(out)
    missing, *kept = sorted(before)
    times = {name: (out / "cells" / name / WEIGHTS_FILE).stat().st_mtime_ns for name in kept}
    (out / "cells" / missing / "report.json").unlink()
    (out / "cells" / kept[0] / "report.json").write_text('{"model": 3')  # torn
    dry = sweep(folder, "--dry-run")
    assert f"{CELLS} cells: {CELLS - 1} settled, 1 to run" in dry.stdout
    (out / "results.sqlite").unlink()  # the driver was lost before it could upload it
    again = sweep(folder)
    assert f"{CELLS - 1} done, 1 failed" in again.stdout, again.output
    assert artifacts(out) == before
    ran = {
        name
        for name in kept
        if (out / "cells" / name / WEIGHTS_FILE).stat().st_mtime_ns != times[name]
    }
    assert ran == {kept[0]}
    for name in (missing, kept[0]):
        log = (out / "logs" / f"{name}.log").read_text()
        assert "evaluating the compressed model" in log
        assert "evaluating the dense model" not in log  # it came from the store
    table = rows(f"file://{out}")
    assert len(table) == CELLS
    assert table[kept[1]]["seconds"] is None  # found, not run
    assert table[missing]["seconds"] > 0


def test_the_page_of_a_url(folder: Path) -> None:
    target = folder / "page.html"
    words = ["report", f"file://{folder}/store/sweep", "--out", str(target)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.stderr
    assert f"{CELLS - 1} artifacts" in done.stdout
    assert target.read_bytes() == (folder / "store/sweep/report.html").read_bytes()
    none = CliRunner().invoke(app, ["report", f"file://{folder}/none", "--out", str(target)])
    assert none.exit_code == 2
    assert "has no artifact with a report.json" in none.stderr


@pytest.mark.usefixtures("no_workers")
def test_a_page_of_somebody_elses_stays(folder: Path) -> None:
    page = folder / "store/sweep/report.html"
    page.write_text("<html>mine</html>")
    done = sweep(folder)
    assert "no page was written: " in done.stderr
    assert page.read_text() == "<html>mine</html>"


@pytest.mark.usefixtures("no_workers")
@pytest.mark.parametrize("kind", ["garbage", "view", "types"])
def test_a_hostile_table_is_one_line(folder: Path, kind: str) -> None:
    table = folder / "store/sweep/results.sqlite"
    if kind == "garbage":
        table.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    else:
        connection = sqlite3.connect(table)
        if kind == "view":
            connection.execute("CREATE VIEW other AS SELECT 1")
        else:
            connection.execute("UPDATE cells SET state = x'00ff', file_bytes = 'many'")
        connection.commit()
        connection.close()
    content = table.read_bytes()
    done = CliRunner().invoke(app, ["results", f"file://{folder}/store/sweep"])
    assert done.exit_code == 1
    assert done.stderr.startswith(f"error: file://{folder}/store/sweep/results.sqlite")
    assert len(done.stderr.splitlines()) == 1
    assert sweep(folder).exit_code == 1
    if kind == "types":  # cells in no known state are looked up, and their rows written anew
        assert len(rows(f"file://{folder}/store/sweep")) == CELLS
    else:
        assert table.read_bytes() == content


def test_a_url_that_cannot_be_opened_stops_the_sweep_at_once(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(GRID)
    for command in (["sweep", str(tmp_path / "grid.yaml"), "--out"], ["results"], ["report"]):
        done = CliRunner().invoke(app, [*command, "oss://bucket/sweep"])
        assert done.exit_code == 2
        assert "pip install ossfs" in done.stderr

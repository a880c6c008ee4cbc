"""`vqzoo sweep`: every cell runs once, what cells share is computed once, and nothing is lost."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sweeping import CELLS, GRID, ONE_WORKER, TWO_WORKERS, Swept, sweep
from typer.testing import CliRunner

from vqzoo.artifact.files import sha256_file
from vqzoo.artifact.schema import WEIGHTS_FILE
from vqzoo.cli.main import app

pytestmark = pytest.mark.slow


def rows(out: Path) -> dict[str, dict[str, Any]]:
    done = CliRunner().invoke(app, ["results", str(out), "--json"])
    assert done.exit_code == 0, done.stderr
    return {row["cell"]: row for row in json.loads(done.stdout)}


def artifacts(out: Path) -> dict[str, str]:
    """Cell -> sha256 of its weights file."""
    return {file.parent.name: sha256_file(file) for file in out.glob(f"cells/*/{WEIGHTS_FILE}")}


def workers(session: int) -> list[str]:
    """The processes of a session that run."""
    states = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, number = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue  # it has just ended
        if int(number) == session and state != "Z":
            states.append(f"{path.parent.name} {state}")
    return states


def copied(swept: Swept, folder: Path) -> Path:
    shutil.copytree(swept.folder, folder, dirs_exist_ok=True)
    return folder / "out"


def test_every_cell_has_a_row_and_one_that_fails_its_reason_and_log(swept: Swept) -> None:
    assert swept.exit_code == 1  # one cell failed
    assert f"{CELLS} cells: {CELLS - 1} done, 1 failed" in swept.stdout
    table = rows(swept.out)
    assert len(table) == CELLS
    (failed,) = [row for row in table.values() if row["state"] == "failed"]
    assert "'nowhere' matches no layer" in failed["reason"]
    assert failed["reason"] in (swept.out / failed["log"]).read_text()
    assert failed["reason"] in swept.stdout
    for row in table.values():
        if row["state"] == "done":
            record = json.loads((swept.out / row["folder"] / "report.json").read_text())
            assert row["file_bytes"] == (swept.out / row["folder"] / WEIGHTS_FILE).stat().st_size
            assert row["top1"] == record["accuracy"]["compressed"]["top1"]
            assert row["images"] == 40
            assert row["seconds"] > 0


def test_what_cells_share_is_computed_once(swept: Swept) -> None:
    logs = "".join(path.read_text() for path in (swept.out / "logs").iterdir())
    assert logs.count("evaluating the dense model") == 2  # networks
    assert logs.count("calibrating on") == 1
    assert logs.count("evaluating the compressed model") == CELLS - 1
    assert len(list((swept.out / "shared/dense").iterdir())) == 2
    assert len(list((swept.out / "shared/second-order").iterdir())) == 1


def test_a_cell_is_what_its_command_makes(swept: Swept, tmp_path: Path) -> None:
    for cell, row in rows(swept.out).items():
        if row["state"] == "failed":
            continue
        words = [*shlex.split(row["command"])[1:], "--out", str(tmp_path / cell)]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.stderr
        assert sha256_file(tmp_path / cell / WEIGHTS_FILE) == artifacts(swept.out)[cell]
        alone = json.loads((tmp_path / cell / "report.json").read_text())
        record = json.loads((swept.out / row["folder"] / "report.json").read_text())
        for field in ("accuracy", "asked_sha256", "layers"):
            assert record[field] == alone[field]


def test_one_process_makes_the_same_bytes_and_only_what_is_missing(
    swept: Swept, tmp_path: Path
) -> None:
    out = copied(swept, tmp_path)
    (missing, cell), *kept = sorted((path.name, path) for path in (out / "cells").iterdir())
    times = {name: (path / WEIGHTS_FILE).stat().st_mtime_ns for name, path in kept}
    shutil.rmtree(cell)
    again = sweep(tmp_path, *ONE_WORKER, "--retry-failed")
    assert again.exit_code == 1
    assert "1 failed" in again.stdout
    assert artifacts(out) == artifacts(swept.out)
    assert {name: (path / WEIGHTS_FILE).stat().st_mtime_ns for name, path in kept} == times
    assert (out / "logs" / f"{missing}.log").read_text().count("vqzoo run") == 2


def test_a_dry_run_lists_what_is_missing_and_how_long_it_takes(
    swept: Swept, tmp_path: Path
) -> None:
    out = copied(swept, tmp_path)
    settled = sweep(tmp_path, "--dry-run")
    assert settled.exit_code == 0
    assert f"{CELLS} cells: {CELLS} settled, 0 to run" in settled.stdout
    retried = sweep(tmp_path, "--dry-run", "--retry-failed")
    assert f"{CELLS - 1} settled, 1 to run" in retried.stdout
    assert "s of one worker" in retried.stdout
    shutil.rmtree(out)
    fresh = sweep(tmp_path, "--dry-run", "--limit", "4")
    assert "0 settled, 4 to run; time: not known before a cell has finished" in fresh.stdout
    for row in rows(swept.out).values():
        if row["requested_ratio"] == 6 and row["state"] == "done":
            assert f"{row['file_bytes']:,}" in fresh.stdout
    assert not out.exists()


def test_ctrl_c_leaves_nothing_running_and_the_sweep_goes_on(tmp_path: Path, swept: Swept) -> None:
    (tmp_path / "grid.yaml").write_text(GRID)
    words = ["sweep", "grid.yaml", "--out", "out", *TWO_WORKERS]
    driver = subprocess.Popen(
        [sys.executable, "-m", "vqzoo.cli.main", *words],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while not list(tmp_path.glob("out/logs/*")) and driver.poll() is None:
            time.sleep(0.05)
        os.killpg(driver.pid, signal.SIGINT)
        _, stderr = driver.communicate(timeout=300)
        assert driver.returncode == 130, stderr
        assert "interrupted; run the same command again to resume" in stderr
        # What multiprocessing itself keeps beside the driver ends a moment after it.
        deadline = time.monotonic() + 60
        while (left := workers(driver.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left == []
    finally:
        if driver.poll() is None:
            os.killpg(driver.pid, signal.SIGKILL)
    assert len(artifacts(tmp_path / "out")) < CELLS - 1


def test_requests_that_make_no_sense(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(GRID)
    for arguments, says in [
        (("--executor", "locl:2"), "no executor called 'locl'; did you mean local?"),
        (("--executor", "local:none"), "local:none: write local"),
        (("--memory", "much"), "--memory much: "),
    ]:
        done = sweep(tmp_path, *arguments)
        assert done.exit_code == 2
        assert says in done.stderr
    assert not (tmp_path / "out").exists()

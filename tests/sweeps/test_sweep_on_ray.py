"""A sweep on two nodes of Ray loses a worker, a node and nothing else."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vqzoo.artifact.files import sha256_file
from vqzoo.artifact.schema import WEIGHTS_FILE
from vqzoo.cli.main import app

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.cluster, pytest.mark.slow]

GRID = """
models: [mobilenet_mini.fmnist, vit_mini.fmnist, alexnet_mini.fmnist]
methods: [km, rtn]
ratios: [4, 8]
seeds: [0, 1]
layers: [largest:1]
images: 32
"""
CELLS = 24
PATIENCE = 600.0  # seconds


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_worker_niceness", "0")  # else workers starve on a busy machine
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        yield cluster
    finally:
        cluster.shutdown()


def sweep(folder: Path, executor: str) -> str:
    """Run the sweep into FOLDER/EXECUTOR's name; what it printed."""
    out = folder / executor.partition(":")[0]
    words = ["sweep", str(folder / "grid.yaml"), "--out", str(out), "--executor", executor]
    done = CliRunner().invoke(app, [*words, "--threads", "1"])
    assert done.exit_code == 0, done.output
    return done.stdout


def files(out: Path) -> dict[str, str]:
    """Cell -> sha256 of its weights file, of the cells that have finished."""
    reports = [report for report in out.glob("cells/*/report.json") if not report.parent.suffix]
    return {report.parent.name: sha256_file(report.with_name(WEIGHTS_FILE)) for report in reports}


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value


def stopped_in_a_layer(out: Path) -> tuple[Path, int] | None:
    """The log and the process of a cell that compresses a layer, and cannot finish: it stands."""
    for log in out.glob("logs/*.log"):
        if not _in_a_layer(log):
            continue
        process = int(log.read_text().split("process ")[-1].split()[0])
        try:
            os.kill(process, signal.SIGSTOP)
        except ProcessLookupError:
            continue  # its cell has just ended, and so has the process
        if _in_a_layer(log):
            return log, process
        os.kill(process, signal.SIGCONT)  # it was faster
    return None


def _in_a_layer(log: Path) -> bool:
    text = log.read_text()
    return "layer 1 of" in text and "finished" not in text


def test_a_killed_worker_and_nodes_that_come_and_go_change_no_byte(
    cluster: Any, tmp_path: Path
) -> None:
    (tmp_path / "grid.yaml").write_text(GRID)
    out = tmp_path / "ray"
    leaving = cluster.add_node(num_cpus=1)
    with ThreadPoolExecutor(1) as thread:
        swept = thread.submit(sweep, tmp_path, f"ray:{cluster.address}")
        until(lambda: len(files(out)) >= 2)
        log, process = until(lambda: stopped_in_a_layer(out))
        os.kill(process, signal.SIGKILL)
        until(lambda: len(files(out)) >= 8)
        cluster.remove_node(leaving, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        assert f"{CELLS} cells: {CELLS} done" in swept.result()
    assert log.read_text().count("process ") > 1  # Ray makes the second attempt behind other calls
    sweep(tmp_path, "local:1")
    assert len(files(out)) == CELLS
    assert files(out) == files(tmp_path / "local")

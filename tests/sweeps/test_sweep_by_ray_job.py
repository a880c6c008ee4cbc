"""A sweep as a job of a cluster that `ray start` made; the cluster's file in the docs."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from vqzoo.artifact.files import sha256_file
from vqzoo.artifact.schema import WEIGHTS_FILE

pytest.importorskip("ray")
pytest.importorskip("aiohttp_cors", reason="needs ray[default], for the dashboard")
pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
GRID = """
models: [mobilenet_mini.fmnist]
methods: [km, rtn]
ratios: [6]
layers: [largest:1]
images: 40
"""
VQZOO = [sys.executable, "-m", "vqzoo.cli.main"]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
PATIENCE = 300  # seconds


@dataclass(frozen=True)
class Head:
    """A cluster of one node.

    Attributes:
        dashboard: the URL that takes jobs.
        clients: the address for machines that do not belong to the cluster.
        environment: of whoever talks to it.
    """

    dashboard: str
    clients: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """`ray start --head`, on free ports."""
    gcs, dashboard, agent, runtime_env, clients = free_ports(5)
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "disabled",
        "RAY_worker_niceness": "0",  # else workers starve on a busy machine
        "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "300",
        "GRPC_ENABLE_FORK_SUPPORT": "0",  # Ray's proxy starts processes beside threads of gRPC
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")]),
    }
    # Ray's sockets lie in there, and their paths must be short.
    scratch = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    words = [
        "start", "--head", "--block", "--port", str(gcs), "--num-cpus", "2",
        "--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard),
        "--dashboard-agent-listen-port", str(agent),
        "--runtime-env-agent-port", str(runtime_env),
        "--ray-client-server-port", str(clients),
        "--min-worker-port", "0", "--max-worker-port", "0",
        "--disable-usage-stats", "--temp-dir", scratch,
    ]  # fmt: skip
    log = Path(scratch, "start.log")
    with log.open("w") as output:
        process = subprocess.Popen(
            [*RAY, *words], env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield Head(f"http://127.0.0.1:{dashboard}", f"ray://127.0.0.1:{clients}", environment)
    finally:
        process.terminate()  # the node drains, then ends its processes
        process.wait(PATIENCE)
        shutil.rmtree(scratch, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def until_it_answers(head: Head) -> None:
    """Wait for the dashboard, which comes last."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            urllib.request.urlopen(f"{head.dashboard}/api/version", timeout=10)
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.5)


def call(words: list[str], folder: Path, environment: dict[str, str]) -> str:
    """What a command printed; it succeeds."""
    done = attempt(words, folder, environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def attempt(
    words: list[str], folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """A command that has ended."""
    return subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )


def files(out: Path) -> dict[str, str]:
    """Cell -> sha256 of its weights file."""
    return {file.parent.name: sha256_file(file) for file in out.glob(f"cells/*/{WEIGHTS_FILE}")}


@pytest.fixture(scope="module")
def here(head: Head, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a process of this machine makes of the grid."""
    folder = tmp_path_factory.mktemp("here")
    assert "2 cells: 2 done" in call(sweep_into(folder, "local:1"), folder, head.environment)
    return files(folder / "out")


def sweep_into(folder: Path, executor: str) -> list[str]:
    """A command whose artifacts are in the folder's `out`."""
    (folder / "grid.yaml").write_text(GRID)
    words = ["sweep", str(folder / "grid.yaml"), "--out", str(folder / "out"), "--threads", "1"]
    return [*VQZOO, *words, "--executor", executor]


def test_a_job_makes_the_same_artifacts(head: Head, here: dict[str, str], tmp_path: Path) -> None:
    job = sweep_into(tmp_path, "ray:auto")
    submit = [*RAY, "job", "submit", "--address", head.dashboard, "--", *job]
    until_it_answers(head)
    printed = call(submit, tmp_path, head.environment)
    assert "2 cells: 2 done" in printed
    assert re.search(r"Job 'raysubmit_\w+' succeeded", printed)
    assert files(tmp_path / "out") == here
    assert len(here) == 2


def test_a_machine_outside_the_cluster_drives_a_sweep(
    head: Head, here: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("grpc", reason="needs ray[client]")
    until_it_answers(head)
    sweep = sweep_into(tmp_path, f"ray:{head.clients}")
    done = attempt(sweep, tmp_path, head.environment)
    if "Run the same command again" in done.stderr:  # Ray's proxy had lost the client's process
        done = attempt(sweep, tmp_path, head.environment)
    assert "2 cells: 2 done" in done.stdout, done.stderr
    assert files(tmp_path / "out") == here


def test_the_cluster_file_in_the_docs_is_one_of_rays() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((ROOT / "docs/examples/ray_cluster.yaml").read_text())
    validate_config(prepare_config(config))
    config["available_node_types"]["worker"]["max_worker"] = 3
    with pytest.raises(Exception, match="'max_worker' was unexpected"):
        validate_config(prepare_config(config))

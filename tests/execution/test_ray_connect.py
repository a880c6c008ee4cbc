"""Connections to Ray's server for clients that never come about: the command says so, and ends."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest

pytest.importorskip("ray")
grpc = pytest.importorskip("grpc", reason="needs ray[client]")
pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
GRID = "models: [mobilenet_mini.fmnist]\nmethods: [rtn]\nratios: [6]\n"
PATIENCE = 300  # seconds


@contextmanager
def mute() -> Iterator[int]:
    """The port of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextmanager
def without_the_clients_process() -> Iterator[int]:
    """The port of a server like Ray's when it has lost the process of a client: it answers pings,
    says that it has failed, and leaves the streams open. Ray's client then disconnects for ever.
    """
    from ray.core.generated import ray_client_pb2 as messages
    from ray.core.generated import ray_client_pb2_grpc as services

    ends = Event()

    class Server(
        services.RayletDriverServicer,
        services.RayletDataStreamerServicer,
        services.RayletLogStreamerServicer,
    ):
        def ClusterInfo(self, request: Any, context: Any) -> Any:
            return messages.ClusterInfoResponse(json="{}")

        def Datapath(self, requests: Any, context: Any) -> Iterator[Any]:
            failed = messages.InitResponse(ok=False, msg="Starting Ray client server failed.")
            yield messages.DataResponse(req_id=next(requests).req_id, init=failed)
            ends.wait()

        def Logstream(self, requests: Any, context: Any) -> Iterator[Any]:
            ends.wait()
            yield from ()

    with ThreadPoolExecutor(8) as threads:
        server = grpc.server(threads)
        for service in ("RayletDriver", "RayletDataStreamer", "RayletLogStreamer"):
            getattr(services, f"add_{service}Servicer_to_server")(Server(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield port
        finally:
            ends.set()
            server.stop(None).wait()


@pytest.mark.parametrize("serving", [mute, without_the_clients_process])
def test_a_server_that_lets_no_client_in_is_given_up(serving: Any, tmp_path: Path) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text(GRID)
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "disabled",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")]),
    }
    with serving() as port:
        words = ["sweep", str(grid), "--out", str(tmp_path / "out")]
        words += ["--executor", f"ray:ray://127.0.0.1:{port},connect=4"]
        done = subprocess.run(
            [sys.executable, "-m", "vqzoo.cli.main", *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    line = done.stderr
    assert line.startswith(f"error: ray://127.0.0.1:{port} has not let this client in within 4 s")
    assert "Run the same command again" in line

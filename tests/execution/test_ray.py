"""The engine `ray` on two local nodes that Ray simulates: processes of their own, and one process
for each call."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, wait
from pathlib import Path
from typing import Any

import pytest

from vqzoo.artifact.schema import WEIGHTS_FILE
from vqzoo.errors import VqzooWarning
from vqzoo.plugin import CallResources
from vqzoo.plugin.manager import installed_plugins
from vqzoo.progress import SilentWatcher
from vqzoo.runs.recipe import make_recipe
from vqzoo.runs.run import run
from vqzoo.testing import check_engine

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.cluster, pytest.mark.slow]

NODE = "__import__('ray').get_runtime_context().get_node_id()"
SLOW_NODE = f"__import__('time').sleep(0.3) or {NODE}"
engine = installed_plugins().engines.get("ray").item


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # else workers starve on a busy machine
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )
        cluster.add_node(num_cpus=1)
        try:
            yield cluster
        finally:
            cluster.shutdown()


@pytest.fixture(scope="module")
def executor(cluster: Any) -> Iterator[Executor]:
    executor = engine.start(cluster.address, CallResources(cpus=1))
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def run_until(executor: Executor, node_ids: Callable[[set[str]], bool]) -> None:
    """Run calls, a few at a time, until the nodes that they ran on are enough: how soon a new node
    takes calls is the scheduler's affair."""
    seen: set[str] = set()
    deadline = time.monotonic() + 300
    while not node_ids(seen):
        assert time.monotonic() < deadline
        calls = [executor.submit(eval, SLOW_NODE) for _ in range(6)]
        seen |= {call.result(300) for call in calls}


def test_it_keeps_the_contract(cluster: Any) -> None:
    """Comes first: later tests stay connected, and a connected process stays so."""
    check_engine(engine, cluster.address)
    assert not ray.is_initialized()


def test_calls_run_on_both_nodes(executor: Executor) -> None:
    run_until(executor, lambda seen: len(seen) == 2)


def test_a_worker_that_is_killed_costs_nothing(executor: Executor, tmp_path: Path) -> None:
    """The first attempt waits until its process is killed; the second returns."""
    pid = tmp_path / "pid"
    program = (
        "import os, pathlib, time\n"
        f"pid = pathlib.Path({str(pid)!r})\n"
        "if not pid.exists():\n"
        "    pid.with_suffix('.part').write_text(str(os.getpid()))\n"
        "    pid.with_suffix('.part').rename(pid)\n"
        "    time.sleep(600)\n"
    )
    call = executor.submit(exec, program)
    others = [executor.submit(pow, i, 2) for i in range(20)]
    until(pid.exists)
    os.kill(int(pid.read_text()), signal.SIGKILL)
    assert call.result(300) is None
    assert [other.result(300) for other in others] == [i * i for i in range(20)]


def test_nodes_come_and_go(cluster: Any, executor: Executor) -> None:
    leaving = cluster.add_node(num_cpus=2)
    calls: list[Future[Any]] = []

    def one_has_run_on_the_node() -> bool:
        """How soon a new node takes calls is the scheduler's affair: some always wait for one."""
        while sum(not call.done() for call in calls) < 12:
            calls.append(executor.submit(eval, SLOW_NODE))
        return any(call.done() and call.result() == leaving.node_id for call in calls)

    until(one_has_run_on_the_node)
    cluster.remove_node(leaving, allow_graceful=False)
    arriving = cluster.add_node(num_cpus=2)
    nodes = [call.result(300) for call in calls]
    assert leaving.node_id in nodes
    run_until(executor, lambda seen: arriving.node_id in seen)
    cluster.remove_node(arriving)


def test_layers_of_a_run_are_tasks_that_make_the_same_artifact(
    executor: Executor, tmp_path: Path
) -> None:
    fields = {"model": "test_resnet", "weights": "random", "method": "km", "layers": ("largest:4",)}
    recipe = make_recipe(fields)
    run(recipe, SilentWatcher(), out=tmp_path / "tasks", executor=executor)
    run(recipe, SilentWatcher(), out=tmp_path / "here")
    there, here = (tmp_path / name / WEIGHTS_FILE for name in ("tasks", "here"))
    assert there.read_bytes() == here.read_bytes()


def test_a_cancelled_future_cancels_its_task(executor: Executor, tmp_path: Path) -> None:
    path = tmp_path / "beats"
    beat = f"while True: open({str(path)!r}, 'a').write('.'); __import__('time').sleep(0.02)"
    endless: Future[Any] = executor.submit(exec, beat)
    until(path.exists)
    assert endless.cancel()
    ends = [executor.submit(pow, i, 2) for i in range(4)]  # more than the nodes run at once
    assert not wait(ends, 300).not_done
    until(lambda: stands(path))


def stands(path: Path) -> bool:
    """Whether nobody writes a file: for 50 times as long as there is between two beats."""
    size = path.stat().st_size
    time.sleep(1)
    return path.stat().st_size == size


def test_needs_that_no_node_has_are_told(cluster: Any) -> None:
    with pytest.warns(VqzooWarning, match=r"has what one call needs \(CPU 1, GPU 0.5\)"):
        executor = engine.start(cluster.address, CallResources(cpus=1, gpus=0.5))
    waiting = executor.submit(pow, 2, 2)
    executor.shutdown(cancel_futures=True)
    assert waiting.cancelled()

"""The engine `local`: processes on this machine, of which each may die alone."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Executor, wait
from pathlib import Path

import pytest

from vqzoo.errors import UsageError
from vqzoo.plugin import CallResources, Engine, WorkerLost
from vqzoo.plugin.manager import installed_plugins


def local() -> Engine:
    return installed_plugins().engines.get("local").item


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with local().start("2", CallResources(cpus=3)) as executor:
        yield executor


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_calls_run_in_processes_of_their_own_with_their_share_of_the_threads(
    executor: Executor,
) -> None:
    pids = {executor.submit(os.getpid).result() for _ in range(4)}
    assert os.getpid() not in pids
    assert len(pids) <= 2
    for limit in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        assert executor.submit(os.getenv, limit).result() == "3"
    torch_threads = executor.submit(eval, "__import__('torch').get_num_threads()")
    assert torch_threads.result() == 3


def test_a_call_that_raises_says_so_and_the_process_goes_on(executor: Executor) -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        executor.submit(divmod, 1, 0).result()
    assert "ZeroDivisionError" in raised.value.__notes__[0]
    with pytest.raises(SystemExit):
        executor.submit(exec, "raise SystemExit(3)").result()
    with pytest.raises(TypeError, match="pickle"):
        executor.submit(eval, "__import__('threading').Lock()").result()
    with pytest.raises(AttributeError):
        executor.submit(lambda: 0)
    assert executor.submit(divmod, 7, 2).result() == (3, 1)


def test_a_process_that_is_killed_costs_its_call_alone(executor: Executor) -> None:
    killed = executor.submit(exec, "import os; os.kill(os.getpid(), 9)")
    others = [executor.submit(pow, number, 2) for number in range(20)]
    assert [future.result() for future in others] == [number**2 for number in range(20)]
    with pytest.raises(WorkerLost, match="SIGKILL; it may have run out of memory"):
        killed.result()
    ended = executor.submit(os._exit, 7)
    with pytest.raises(WorkerLost, match="exit code 7"):
        ended.result()


def test_cancelling_leaves_nothing_running(tmp_path: Path) -> None:
    executor = local().start("1", CallResources(cpus=1))
    pid = executor.submit(os.getpid).result()
    cleaning = (
        "import pathlib, time\n"
        f"file = pathlib.Path({str(tmp_path / 'file')!r})\n"
        "file.touch()\n"
        "try: time.sleep(600)\n"
        "finally: file.unlink()"
    )
    running = executor.submit(exec, cleaning)
    waiting = executor.submit(pow, 2, 2)
    while not (tmp_path / "file").exists():
        time.sleep(0.01)
    executor.shutdown(cancel_futures=True)
    assert not alive(pid)
    assert not (tmp_path / "file").exists()
    assert waiting.cancelled()
    with pytest.raises(WorkerLost):
        running.result(timeout=1)
    with pytest.raises(RuntimeError, match="shut down"):
        executor.submit(pow, 2, 2)


def test_processes_ignore_ctrl_c_which_is_the_drivers(executor: Executor) -> None:
    pid = executor.submit(os.getpid).result()
    os.kill(pid, signal.SIGINT)
    done, _ = wait([executor.submit(os.getpid) for _ in range(8)])
    assert pid in {future.result() for future in done}


@pytest.mark.parametrize("address", ["0", "-1", "two", "1.5", "²"])
def test_an_address_that_is_no_number_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match=f"local:{address}: write local"):
        local().check(address)


def test_these_addresses_are_valid() -> None:
    for address in ("", "1", "32"):
        local().check(address)

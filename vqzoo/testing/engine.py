"""The conformance kit's rules for engines."""

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from vqzoo.plugin.execution.engine import CallResources, Engine, WorkerLost
from vqzoo.testing.broken import check_rules, require

PATIENCE = 120.0  # seconds for a call that takes milliseconds, on a busy machine
THREADS = 1


@dataclass(frozen=True)
class Trial:
    """An engine, the executor that it started, and a folder for what calls write."""

    engine: Engine
    executor: Executor
    folder: Path


def _process() -> int:
    return os.getpid()


def _keywords(first: int, *, second: int) -> tuple[int, int]:
    return first, second


def _fail() -> None:
    raise LookupError("no such image: 'ü.png'")


def _has_callers_state() -> bool:
    return hasattr(sys, "_vqzoo_testing_caller")


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _die() -> None:
    os._exit(3)


def _beat(path: str) -> None:
    """Append to a file until the process ends."""
    while True:
        with open(path, "ab") as file:
            file.write(b".")
        time.sleep(0.02)


def it_describes_itself(trial: Trial) -> None:
    """`summary` is a line for the help."""
    require(bool(trial.engine.summary), "its summary is empty")
    require("\n" not in trial.engine.summary, "its summary has several lines")


def results_come_back(trial: Trial) -> None:
    """Positional and keyword arguments reach the call, and its result the future."""
    calls = [trial.executor.submit(_keywords, i, second=i * i) for i in range(5)]
    results = [call.result(PATIENCE) for call in calls]
    require(results == [(i, i * i) for i in range(5)], f"the results are {results}")


def exceptions_come_back(trial: Trial) -> None:
    """What a call raises, its future raises: the same type, with the same text."""
    error = trial.executor.submit(_fail).exception(PATIENCE)
    require(isinstance(error, LookupError), f"the call raised LookupError, the future {error!r}")
    require("no such image: 'ü.png'" in str(error), f"the text is {str(error)!r}")


def calls_run_elsewhere(trial: Trial) -> None:
    """A call runs in another process, which does not have the caller's state: it is spawned, not
    forked."""
    process = trial.executor.submit(_process).result(PATIENCE)
    require(process != os.getpid(), "the call ran in the caller's process")
    sys._vqzoo_testing_caller = True  # type: ignore[attr-defined]
    try:
        inherited = trial.executor.submit(_has_callers_state).result(PATIENCE)
    finally:
        del sys._vqzoo_testing_caller  # type: ignore[attr-defined]
    require(not inherited, "the call's process was forked: it has the caller's state")


def threads_are_limited(trial: Trial) -> None:
    """Numerical libraries use as many threads as `CallResources.cpus` says."""
    threads = trial.executor.submit(_threads).result(PATIENCE)
    require(threads == THREADS, f"torch uses {threads} threads, not {THREADS}")


def a_lost_process_costs_its_call_alone(trial: Trial) -> None:
    """If the process of a call dies, that call's future raises `WorkerLost`, and calls before and
    after it return."""
    before = trial.executor.submit(_keywords, 1, second=2)
    lost = trial.executor.submit(_die)
    after = trial.executor.submit(_keywords, 3, second=4)
    error = lost.exception(PATIENCE)
    require(isinstance(error, WorkerLost), f"the future raised {error!r}, not WorkerLost")
    results = [before.result(PATIENCE), after.result(PATIENCE)]
    require(results == [(1, 2), (3, 4)], f"the other calls returned {results}")


def shutdown_ends_every_call(trial: Trial) -> None:
    """`shutdown(cancel_futures=True)` ends calls that run, cancels those that wait, and returns
    when no process runs any more. Then `submit` raises RuntimeError."""
    path = trial.folder / "beats"
    running = trial.executor.submit(_beat, str(path))
    waiting = [trial.executor.submit(_beat, str(path)) for _ in range(200)]
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        require(not running.done(), f"the call ended: {running}")
        require(time.monotonic() < deadline, f"no call began within {PATIENCE:.0f} s")
        time.sleep(0.02)
    trial.executor.shutdown(cancel_futures=True)
    size = path.stat().st_size
    time.sleep(0.5)
    require(path.stat().st_size == size, "a call went on after shutdown")
    open_ones = [call for call in (running, *waiting) if not call.done()]
    require(not open_ones, f"{len(open_ones)} futures were never completed")
    require(any(call.cancelled() for call in waiting), "no call that waited was cancelled")
    try:
        trial.executor.submit(_process)
    except RuntimeError:
        return
    require(False, "submit accepted a call after shutdown")


ENGINE_RULES: tuple[Callable[[Trial], None], ...] = (
    it_describes_itself,
    results_come_back,
    exceptions_come_back,
    calls_run_elsewhere,
    threads_are_limited,
    a_lost_process_costs_its_call_alone,
    shutdown_ends_every_call,
)


def check_engine(engine: Engine | type[Engine], address: str = "") -> None:
    """Check an engine against the contract, with workers that share this machine's files.

    Args:
        engine: the class, or an instance.
        address: the text behind `--executor NAME:`.

    Raises:
        ExceptionGroup: holds a `ContractBroken` for each broken rule.
        VqzooError: the engine does not start.
    """
    instance = engine() if isinstance(engine, type) else engine
    instance.check(address)
    executor = instance.start(address, CallResources(cpus=THREADS))
    try:
        with TemporaryDirectory() as folder:
            trial = Trial(instance, executor, Path(folder))
            check_rules(type(instance).__name__, ENGINE_RULES, lambda: trial)
    finally:
        executor.shutdown(cancel_futures=True)

"""An engine: `nice:4` runs four calls at a time, each in a process of its own, at low priority."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from threading import Lock
from typing import Any

from vqzoo.errors import UsageError
from vqzoo.plugin import CallResources, Engine, WorkerLost, hookimpl

vqzoo_contract = 1


class Nice(Engine):
    """The engine of `--executor nice:4`."""

    name = "nice"
    summary = "nice:N, N processes at low priority"

    def check(self, address: str) -> None:
        """Refuse anything but a number."""
        if not address.isdecimal() or int(address) == 0:
            raise UsageError(
                f"nice:{address} has no number of processes: write nice:N, as in nice:4"
            )

    def start(self, address: str, resources: CallResources) -> ThreadPoolExecutor:
        """Start threads; each starts the process of a call, and waits for it."""
        self.check(address)
        workers = int(address)
        threads = resources.cpus or max((os.cpu_count() or 1) // workers, 1)
        return ProcessPerCall(workers, threads)


class ProcessPerCall(ThreadPoolExecutor):
    """Runs each call in a pool of one process, so that one that dies costs no other call."""

    def __init__(self, workers: int, threads: int) -> None:
        super().__init__(workers)
        self.environment = ("OMP_NUM_THREADS", str(threads))
        self.lock = Lock()
        self.processes: set[int] = set()
        self.closed = False

    def submit(self, function: Callable, /, *args: Any, **kwargs: Any) -> Future:
        """Schedule a call."""
        return super().submit(self.run, function, args, kwargs)

    def run(self, function: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Run a call in a new process; `os.putenv` reaches OpenMP, which is loaded later."""
        context = get_context("spawn")
        with ProcessPoolExecutor(1, context, os.putenv, self.environment) as pool:
            try:
                pool.submit(os.nice, 10)
                process = pool.submit(os.getpid).result()
                with self.lock:
                    if self.closed:
                        raise WorkerLost("the executor was shut down")
                    self.processes.add(process)
                try:
                    return pool.submit(function, *args, **kwargs).result()
                finally:
                    with self.lock:
                        self.processes.remove(process)
            except BrokenProcessPool as error:
                raise WorkerLost("the process of a call died") from error

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for the calls that run, or end them."""
        if cancel_futures:
            with self.lock:
                self.closed = True
                for process in self.processes:
                    with suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
        super().shutdown(wait, cancel_futures=cancel_futures)


@hookimpl
def vqzoo_executors() -> list[Engine]:
    """Register the engine."""
    return [Nice()]

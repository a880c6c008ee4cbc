"""An executor of processes that have nothing in common.

Each process has a pipe and a thread of the driver to itself, so that a process that dies takes
nothing but its own call along. `concurrent.futures` and loky break the whole pool then; the
processes of pebble share one pipe, and may die while they hold its lock.
"""

import atexit
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import wait
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any

from vqzoo.plugin import WorkerLost
from vqzoo_executors.calls import CallExecutor, settle
from vqzoo_executors.local_worker import work

GRACE = 20.0  # seconds that a process has to clean up before it is killed
THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)

_starting = Lock()  # the environment belongs to all threads
_Call = tuple["Future[Any]", bytes]


class LocalExecutor(CallExecutor):
    """Runs calls in processes, each with its share of the threads."""

    def __init__(self, processes: int, threads: int) -> None:
        """
        Args:
            processes: how many there are at most; each starts when there is a call for it.
            threads: what each of them computes with.
        """
        self._most = processes
        self._threads = threads
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._workers: list[tuple[_Worker, Thread]] = []
        self._lock = Lock()
        self._closed = False
        atexit.register(self.shutdown, cancel_futures=True)

    def _take(self, future: "Future[Any]", call: bytes) -> None:
        self._calls.put((future, call))
        if len(self._workers) < self._most:
            worker = _Worker(self._threads)
            thread = Thread(target=_serve, args=(worker, self._calls), daemon=True)
            self._workers.append((worker, thread))
            thread.start()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See `Engine.start`."""
        atexit.unregister(self.shutdown)
        with self._lock:
            self._closed = True
        if cancel_futures:
            self._cancel()
        for _ in self._workers:
            self._calls.put(None)
        if cancel_futures:
            for worker, _ in self._workers:
                worker.interrupt()
        if wait:
            for _, thread in self._workers:
                thread.join()

    def _cancel(self) -> None:
        while True:
            try:
                call = self._calls.get_nowait()
            except Empty:
                return
            if call is not None:
                call[0].cancel()


class _Worker:
    """A process that runs one call at a time; another takes its place if it dies."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._lock = Lock()
        self._interrupted = False
        self._process: Any = None
        self._connection: Any = None

    def run(self, call: bytes) -> bytes:
        """What `answer` makes of a call.

        Raises:
            WorkerLost: the process died.
        """
        with self._lock:
            if self._interrupted:
                raise WorkerLost("its process was stopped")
            if self._process is None:
                self._start()
        try:
            self._connection.send_bytes(call)
            wait([self._connection, self._process.sentinel])
            answered: bytes = self._connection.recv_bytes()
        except (EOFError, OSError):
            code = self._end()
            raise WorkerLost(_cause_of_death(code)) from None
        return answered

    def interrupt(self) -> None:
        """Stop the process, and start no other."""
        with self._lock:
            self._interrupted = True
            process = self._process
        if process is not None:
            process.terminate()
            process.join(GRACE)
            process.kill()

    def stop(self) -> None:
        """Let the process end, once it has no call."""
        if self._process is not None:
            self._end()

    def _start(self) -> None:
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, self._threads), name="vqzoo")
        with _starting, _environment(self._threads), _without_interrupts():
            self._process.start()
        theirs.close()

    def _end(self) -> int | None:
        self._connection.close()  # a process that waits for a call ends
        self._process.join()
        with self._lock:
            code: int | None = self._process.exitcode
            self._process = None
        return code


def _serve(worker: _Worker, calls: "SimpleQueue[_Call | None]") -> None:
    """Run calls until there is None in the place of one."""
    while (taken := calls.get()) is not None:
        future, call = taken
        if not future.set_running_or_notify_cancel():
            continue
        try:
            answered = worker.run(call)
        except Exception as error:  # WorkerLost, or a process that does not start
            future.set_exception(error)
        else:
            settle(future, answered)
    worker.stop()


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """The environment that a process starts with: libraries read it when they are loaded."""
    before = {name: os.environ.get(name) for name in THREAD_LIMITS}
    os.environ.update(dict.fromkeys(THREAD_LIMITS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Block SIGINT in this thread, and so in a process that it starts: Ctrl-C reaches every process
    of a terminal, and the driver alone decides what becomes of its workers."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _cause_of_death(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = "; it may have run out of memory" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended with exit code {code}"

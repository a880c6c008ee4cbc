"""An executor whose calls are tasks of Ray."""

import atexit
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

import ray
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    OutOfMemoryError,
    TaskCancelledError,
    WorkerCrashedError,
)

from vqzoo.errors import one_line
from vqzoo.plugin import CallResources, WorkerLost
from vqzoo_executors.calls import CallExecutor, answer, settle

RETRIES = 2  # of a call whose worker or node was lost
MOST_IN_FLIGHT = 2000  # calls that Ray knows of; what it keeps for each is several times the call
GRACE = 5.0  # seconds that a call has to clean up before its worker is killed
LOST = (LocalRayletDiedError, NodeDiedError, OutOfMemoryError, WorkerCrashedError)


class RayExecutor(CallExecutor):
    """Runs calls as tasks of the cluster that this process is connected to.

    One thread completes all futures and hands out the calls that wait. It is the only one that
    may block: Ray's own threads, which say that a task has ended, must not.
    """

    def __init__(self, resources: CallResources, *, disconnect: bool) -> None:
        """
        Args:
            resources: what Ray reserves for each call.
            disconnect: whether `shutdown` calls `ray.shutdown`.
        """
        self._threads = resources.cpus or 1
        self._task = ray.remote(answer).options(**task_options(resources))
        self._disconnect = disconnect
        self._waiting: deque[tuple[Future[Any], bytes]] = deque()
        self._in_flight: dict[Future[Any], Any] = {}  # -> the ObjectRef of its answer
        self._arrivals: SimpleQueue[tuple[Future[Any], Future[bytes]] | None] = SimpleQueue()
        self._lock = Lock()
        self._closed = False
        self._thread = Thread(target=self._complete, name="vqzoo-ray", daemon=True)
        self._thread.start()
        atexit.register(self.shutdown, cancel_futures=True)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """See `CallExecutor.submit`. A future that is cancelled in time cancels its task."""
        future = super().submit(fn, *args, **kwargs)
        future.add_done_callback(self._withdraw)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See `Engine.start`."""
        atexit.unregister(self.shutdown)
        with self._lock:
            self._closed = True
            waiting = list(self._waiting) if cancel_futures else []
            if cancel_futures:
                self._waiting.clear()
        for future, _ in waiting:
            future.cancel()
            future.set_running_or_notify_cancel()
        self._arrivals.put(None)
        if cancel_futures:
            self._cancel(force=False)
            if wait:
                self._thread.join(GRACE)
                self._cancel(force=True)
        if wait:
            self._thread.join()
            if self._disconnect:
                self._disconnect = False
                ray.shutdown()

    def _take(self, future: "Future[Any]", call: bytes) -> None:
        self._waiting.append((future, call))
        self._launch()

    def _launch(self) -> None:
        """Hand calls to Ray, which runs them when it has the resources. Needs the lock."""
        while self._waiting and len(self._in_flight) < MOST_IN_FLIGHT:
            future, call = self._waiting.popleft()
            if future.cancelled():
                future.set_running_or_notify_cancel()
                continue
            reference = self._task.remote(call, self._threads)
            self._in_flight[future] = reference
            reference.future().add_done_callback(partial(self._arrive, future))

    def _arrive(self, future: "Future[Any]", answered: "Future[bytes]") -> None:
        """Runs in a thread of Ray's."""
        self._arrivals.put((future, answered))

    def _complete(self) -> None:
        """Complete futures until the executor is shut down and nothing is left to do."""
        while True:
            arrival = self._arrivals.get()
            with self._lock:
                if arrival is not None:
                    del self._in_flight[arrival[0]]
                self._launch()
                finished = self._closed and not self._in_flight
            if arrival is not None:
                _settle(*arrival)
            if finished:
                return

    def _withdraw(self, future: "Future[Any]") -> None:
        """Cancel the task of a future that its owner cancelled."""
        with self._lock:
            reference = self._in_flight.get(future) if future.cancelled() else None
        if reference is not None:
            ray.cancel(reference)

    def _cancel(self, *, force: bool) -> None:
        with self._lock:
            references = list(self._in_flight.values())
        for reference in references:
            ray.cancel(reference, force=force)


def task_options(resources: CallResources) -> dict[str, Any]:
    """The options of a task that needs these resources."""
    options: dict[str, Any] = {
        "num_cpus": resources.cpus or 1,
        "num_gpus": resources.gpus,
        "max_retries": RETRIES,
    }
    if resources.memory_bytes is not None:
        options["memory"] = resources.memory_bytes
    return options


def _settle(future: "Future[Any]", answered: "Future[bytes]") -> None:
    error = answered.exception()
    if isinstance(error, TaskCancelledError | CancelledError):
        future.cancel()
    if not future.set_running_or_notify_cancel():
        return
    if error is None:
        settle(future, answered.result())
    elif isinstance(error, LOST):
        reason = f"its worker was lost {RETRIES + 1} times: {one_line(error)}"
        future.set_exception(WorkerLost(reason))
    else:
        future.set_exception(error)

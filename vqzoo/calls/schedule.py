"""Feeds an executor: a bounded number of calls at a time, and some before others."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

IN_FLIGHT = 2048  # calls that an executor holds, or that wait for others; each takes a few kB


@dataclass(frozen=True)
class Call:
    """A call for an executor.

    Attributes:
        key: identifies it among all calls.
        function: defined at the top of a module.
        argument: the function's; it pickles.
        needs: calls to finish before this one starts, whatever comes of them. Each runs once, for
            all that need it.
        size: its share of what may be in flight at a time.
    """

    key: str
    function: Callable[[Any], Any]
    argument: Any
    needs: tuple["Call", ...] = ()
    size: int = 1


def run_calls(
    calls: Iterable[Call], executor: Executor, in_flight: int = IN_FLIGHT
) -> Generator[tuple[Call, "Future[Any]"], None, None]:
    """Run calls and what they need, and yield each with its future as it finishes.

    Calls are taken from `calls` as others finish, so that it may be long. Whoever stops before the
    end cancels those that have not started.

    Args:
        calls: with keys that differ.
        executor: runs them.
        in_flight: calls are taken while those that run or wait have sizes of less than this
            together.
    """
    schedule = _Schedule(executor)
    try:
        for call in calls:
            schedule.add(call)
            while schedule.size >= in_flight or schedule.has_finished:
                yield schedule.next_finished()
        while schedule.pending:
            yield schedule.next_finished()
    finally:
        schedule.cancel()


class _Schedule:
    def __init__(self, executor: Executor) -> None:
        self.pending = 0
        self.size = 0
        self._executor = executor
        self._finished: SimpleQueue[tuple[Call, Future[Any]]] = SimpleQueue()
        self._submitted: dict[str, Future[Any]] = {}
        self._known: dict[str, bool] = {}  # key of a needed call -> whether it has finished
        self._held: dict[str, deque[Call]] = {}  # key of a needed call -> what waits for it

    def add(self, call: Call) -> None:
        self._count(call, 1)
        for need in call.needs:
            if need.key not in self._known:
                self._known[need.key] = False
                self._count(need, 1)
                self._submit(need)
        self._submit_or_hold(call)

    @property
    def has_finished(self) -> bool:
        return not self._finished.empty()

    def next_finished(self) -> tuple[Call, "Future[Any]"]:
        call, future = self._finished.get()
        self._count(call, -1)
        del self._submitted[call.key]
        if call.key in self._known:
            self._known[call.key] = True
            for waiting in self._held.pop(call.key, ()):
                self._submit_or_hold(waiting)
        return call, future

    def cancel(self) -> None:
        for future in self._submitted.values():
            future.cancel()

    def _count(self, call: Call, sign: int) -> None:
        self.pending += sign
        self.size += sign * call.size

    def _submit_or_hold(self, call: Call) -> None:
        for need in call.needs:
            if not self._known[need.key]:
                self._held.setdefault(need.key, deque()).append(call)
                return
        self._submit(call)

    def _submit(self, call: Call) -> None:
        future = self._submitted[call.key] = self._executor.submit(call.function, call.argument)
        future.add_done_callback(lambda done: self._finished.put((call, done)))

"""The number of threads that kernels use, and the one way of running tasks on them.

Kernels are single-threaded and release the GIL. Work is cut into tasks whose bounds depend on
shapes alone, so that results are the same with any number of threads.
"""

import ctypes
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

Progress = Callable[[int, int], None]
"""Called as progress(done, total)."""

Item = TypeVar("Item")
Result = TypeVar("Result")

_requested: ContextVar[int | None] = ContextVar("threads", default=None)


def thread_count() -> int:
    """The threads that kernels started from here use: those of `use_threads`, else one a core."""
    requested = _requested.get()
    if requested is not None:
        return requested
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def use_threads(n: int | None) -> Iterator[None]:
    """Make kernels and torch's operators use `n` threads within the block; None changes nothing.

    Raises:
        ValueError: n is below 1.
    """
    if n is None:
        yield
        return
    if n < 1:
        raise ValueError(f"the number of threads must be at least 1, not {n}")
    token = _requested.set(n)
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        _requested.reset(token)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Make torch's operators use one thread within the block; `run_tasks` still uses them all.

    torch's own threads wait for one another at the end of every operator, and spin while they
    wait: on a busy machine a short operator is mostly waiting.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Make torch's operators, BLAS and LAPACK use one thread each within the block; `run_tasks`
    still uses them all.

    Factorizations and sums round by the number of threads that they are cut for. Within the block,
    results do not depend on it.
    """
    with one_torch_thread(), threadpool_limits(1, user_api="blas"):
        yield


def run_tasks(
    task: Callable[[Item], Result],
    items: Sequence[Item],
    progress: Progress | None = None,
) -> list[Result]:
    """[task(item) for item in items], on `thread_count()` threads including the calling one.

    progress(done, total) is called from the calling thread, during the work and at the end. The
    first exception (Ctrl-C included) cancels the tasks that have not started and is raised once
    the running ones have ended, so a task should take a fraction of a second.
    """
    if progress is None and (len(items) < 2 or thread_count() < 2):
        return [task(item) for item in items]
    work = _Work(task, items)
    helpers = [
        Thread(target=copy_context().run, args=(work.help,), name="vqzoo")
        for _ in range(min(thread_count(), len(items)) - 1)
    ]
    try:
        for helper in helpers:
            helper.start()
        copy_context().run(work.lead, progress, bool(helpers))
    finally:
        work.queue.clear()
        for helper in helpers:
            if helper.ident is not None:
                helper.join()
    if work.errors:
        raise work.errors[0]
    if progress is not None and work.reported < len(items):
        progress(len(items), len(items))
    return [work.results[i] for i in range(len(items))]


def run_pass_tasks(task: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`run_tasks` of the short tasks of a forward pass, with torch's operators on one thread.

    Where torch has OpenMP threads, the tasks run on those: they wait for their next operator for
    milliseconds without giving up their cores, so that other threads would stand in their way.
    """
    threads, run_team = torch.get_num_threads(), _run_team()
    if len(items) < 2 or thread_count() < 2 or threads < 2 or run_team is None:
        with one_torch_thread():
            return run_tasks(task, items)
    work = _Work(task, items)
    contexts = deque(copy_context() for _ in range(min(thread_count(), len(items), threads)))

    def take_part(_: None) -> None:
        """What each thread of the team does, whose size never changes: that would end threads."""
        try:
            contexts.popleft().run(work.help)
        except IndexError:  # more threads than tasks
            return
        except BaseException as error:  # Ctrl-C between two tasks: ctypes would lose it
            work.errors.append(error)

    run_team(_MEMBER(take_part), None, threads, 0)
    if work.errors:
        raise work.errors[0]
    return [work.results[i] for i in range(len(items))]


def run_kernel(kernel: Callable[[NDArray[np.int64]], None], tasks: int) -> None:
    """Call a kernel that shares its tasks out among threads, which need the GIL for none of them.

    Args:
        kernel: called with a team, see `kernels.products.team`.
        tasks: their number.
    """
    threads, run_team = torch.get_num_threads(), _run_team_address()
    members = min(thread_count(), tasks)
    is_shared = members > 1 and threads > 1  # by all: a change of their number would end some
    team = np.array([0, 0, members, run_team if is_shared else 0, threads], np.int64)
    if members < 2 or team[3]:
        kernel(team)
    else:
        run_tasks(lambda _: kernel(team), range(members))


_MEMBER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@cache
def _run_team() -> Any:
    """GOMP_parallel of the OpenMP library that torch has loaded, which runs a function on each of
    as many threads; None where there is none."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if not library.exists():
        return None
    run_team = getattr(ctypes.CDLL(str(library)), "GOMP_parallel", None)
    if run_team is not None:
        run_team.argtypes = [_MEMBER, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        run_team.restype = None
    return run_team


@cache
def _run_team_address() -> int:
    """The address of `_run_team()`; 0 where there is none."""
    run_team = _run_team()
    return 0 if run_team is None else ctypes.cast(run_team, ctypes.c_void_p).value or 0


class _Work(Generic[Item, Result]):
    """A queue of tasks that threads take one by one."""

    def __init__(self, task: Callable[[Item], Result], items: Sequence[Item]) -> None:
        self.queue = deque(range(len(items)))
        self.results: dict[int, Result] = {}
        self.errors: list[BaseException] = []
        self.reported = 0
        self._task = task
        self._items = items
        self._inference = torch.is_inference_mode_enabled()  # of this thread alone

    def help(self) -> None:
        """Run tasks until none is left or one has failed on any thread."""
        _requested.set(1)
        try:
            with torch.inference_mode(self._inference):
                while self._next():
                    pass
        except BaseException as error:
            self.errors.append(error)
            self.queue.clear()

    def lead(self, progress: Progress | None, helped: bool) -> None:
        """Run tasks on the calling thread and report progress."""
        if helped:
            _requested.set(1)  # the other threads are busy: nested tasks stay on this one
        while self._next():
            if progress is not None:
                self.reported = len(self.results)
                progress(self.reported, len(self._items))

    def _next(self) -> bool:
        try:
            i = self.queue.popleft()
        except IndexError:
            return False
        self.results[i] = self._task(self._items[i])
        return True

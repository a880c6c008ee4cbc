"""How many threads the kernels use, and one way of running kernels on them.

The kernels are single-threaded and release the GIL; work is cut into tasks whose bounds depend
on shapes alone, so that results are the same with any number of threads.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from threading import Thread
from typing import Generic, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_requested: ContextVar[int | None] = ContextVar("threads", default=None)


def thread_count() -> int:
    """Threads that kernels started from here use: as `use_threads` says, else one a core."""
    requested = _requested.get()
    if requested is not None:
        return requested
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def use_threads(n: int | None) -> Iterator[None]:
    """Within the block, kernels and torch's operators use `n` threads; None changes nothing.

    Raises ValueError where n < 1.
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


def run_tasks(
    task: Callable[[Item], Result],
    items: Sequence[Item],
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """[task(item) for item in items], on `thread_count()` threads, the calling one among them.

    progress(done, total) is called from the calling thread, as it goes and at the end. The first
    exception (Ctrl-C too) drops the tasks not yet started and is raised when those that run have
    ended, so a task should take a fraction of a second.
    """
    work = _Work(task, items)
    helpers = [
        Thread(target=copy_context().run, args=(work.help,), name="vqzoo")
        for _ in range(min(thread_count(), len(items)) - 1)
    ]
    try:
        for helper in helpers:
            helper.start()
        # Nested tasks stay on this thread where there are others to keep busy.
        copy_context().run(work.go_on, progress, bool(helpers))
    finally:
        work.left.clear()
        for helper in helpers:
            if helper.ident is not None:
                helper.join()
    if work.errors:
        raise work.errors[0]
    if progress is not None and work.reported < len(items):
        progress(len(items), len(items))
    return [work.results[i] for i in range(len(items))]


class _Work(Generic[Item, Result]):
    """Tasks that threads take one by one."""

    def __init__(self, task: Callable[[Item], Result], items: Sequence[Item]) -> None:
        self.left = deque(range(len(items)))
        self.results: dict[int, Result] = {}
        self.errors: list[BaseException] = []
        self.reported = 0
        self._task = task
        self._items = items

    def help(self) -> None:
        """Take tasks until none is left or one fails anywhere."""
        _requested.set(1)
        try:
            while self._next():
                pass
        except BaseException as error:
            self.errors.append(error)
            self.left.clear()

    def go_on(self, progress: Callable[[int, int], None] | None, helped: bool) -> None:
        """The calling thread's part."""
        if helped:
            _requested.set(1)
        while self._next():
            if progress is not None:
                self.reported = len(self.results)
                progress(self.reported, len(self._items))

    def _next(self) -> bool:
        try:
            i = self.left.popleft()
        except IndexError:
            return False
        self.results[i] = self._task(self._items[i])
        return True

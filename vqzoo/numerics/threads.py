"""How many threads the kernels use, and one way of running kernels on them.

The kernels are single-threaded and release the GIL; work is cut into tasks whose bounds depend
on shapes alone, so that results are the same with any number of threads.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import TypeVar

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
    """[task(item) for item in items], on `thread_count()` threads.

    progress(done, total) is called from the calling thread, after each task. The first exception
    (Ctrl-C too) drops the tasks not yet started and is raised when those that run have ended, so
    a task should take a fraction of a second.
    """
    workers = min(thread_count(), len(items))
    if workers <= 1:
        results = []
        for done, item in enumerate(items, start=1):
            results.append(task(item))
            if progress is not None:
                progress(done, len(items))
        return results
    pool = ThreadPoolExecutor(workers, thread_name_prefix="vqzoo")
    try:
        futures = [pool.submit(copy_context().run, _alone, task, item) for item in items]
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()
            if progress is not None:
                progress(done, len(items))
        return [future.result() for future in futures]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _alone(task: Callable[[Item], Result], item: Item) -> Result:
    """Run a task whose own tasks, if any, stay on its thread."""
    _requested.set(1)
    return task(item)

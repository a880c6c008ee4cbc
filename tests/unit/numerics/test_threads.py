"""Tasks on threads: order, errors, interruption, nesting."""

import threading
import time

import pytest
import torch

from vqzoo.numerics.threads import run_tasks, thread_count, use_threads


@pytest.mark.parametrize("threads", [1, 3])
def test_results_keep_the_order_of_items(threads: int) -> None:
    with use_threads(threads):
        assert run_tasks(lambda i: i * i, range(20)) == [i * i for i in range(20)]


def test_use_threads_sets_and_restores() -> None:
    before, torch_before = thread_count(), torch.get_num_threads()
    with use_threads(3):
        assert thread_count() == torch.get_num_threads() == 3
        with use_threads(None):
            assert thread_count() == 3
    assert (thread_count(), torch.get_num_threads()) == (before, torch_before)


def test_zero_threads_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"), use_threads(0):
        pass


def test_no_more_threads_run_than_requested() -> None:
    seen: set[int] = set()

    def task(_: int) -> None:
        time.sleep(0.001)
        seen.add(threading.get_ident())

    with use_threads(2):
        run_tasks(task, range(40))
    assert 1 <= len(seen) <= 2


def test_nested_tasks_stay_on_their_thread() -> None:
    def task(_: int) -> bool:
        outer = threading.get_ident()
        return all(inner == outer for inner in run_tasks(lambda _: threading.get_ident(), range(4)))

    with use_threads(3):
        assert all(run_tasks(task, range(6)))


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_cancels_the_tasks_that_have_not_started(threads: int) -> None:
    started: list[int] = []

    def task(i: int) -> None:
        started.append(i)
        time.sleep(0.005)
        if i == 0:
            raise KeyboardInterrupt

    with use_threads(threads), pytest.raises(KeyboardInterrupt):
        run_tasks(task, range(1000))
    assert len(started) < 100

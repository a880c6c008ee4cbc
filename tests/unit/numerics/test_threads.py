"""Tasks on threads: order, errors, interruption, nesting."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from vqzoo.numerics import threads as threads_module
from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.products.team import joins, on_team, take_rows
from vqzoo.numerics.threads import (
    run_kernel,
    run_pass_tasks,
    run_tasks,
    thread_count,
    use_threads,
)

both = pytest.mark.parametrize("run", [run_tasks, run_pass_tasks])
Run = Callable[[Callable[[int], Any], range], list[Any]]


@both
@pytest.mark.parametrize("threads", [1, 3])
def test_results_keep_the_order_of_items(run: Run, threads: int) -> None:
    with use_threads(threads):
        assert run(lambda i: i * i, range(20)) == [i * i for i in range(20)]


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


@both
def test_no_more_threads_run_than_requested(run: Run) -> None:
    seen: set[int] = set()

    def task(_: int) -> None:
        time.sleep(0.001)
        seen.add(threading.get_ident())

    with use_threads(2):
        run(task, range(40))
    assert 1 <= len(seen) <= 2


def test_a_pass_may_have_fewer_threads_than_torch() -> None:
    seen: set[int] = set()

    def task(_: int) -> None:
        time.sleep(0.001)
        seen.add(threading.get_ident())

    with use_threads(2):
        torch.set_num_threads(4)
        run_pass_tasks(task, range(40))
        assert torch.get_num_threads() == 4
    assert 1 <= len(seen) <= 2


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_operators_of_a_pass_run_on_one_thread_in_the_mode_of_the_caller(mode: Any) -> None:
    a, expected = torch.ones(200, 200), torch.is_inference_mode_enabled
    with use_threads(2), mode():
        modes = run_pass_tasks(lambda _: (expected(), (a @ a).sum().item()), range(8))
        assert modes == [(expected(), 200.0**3)] * 8


def test_passes_in_several_threads_at_once() -> None:
    answers: list[list[int]] = []

    def passes() -> None:
        with use_threads(2):
            for _ in range(20):
                answers.append(run_pass_tasks(lambda i: i + 1, range(5)))

    threads = [threading.Thread(target=passes) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [[1, 2, 3, 4, 5]] * 60


@both
def test_nested_tasks_stay_on_their_thread(run: Run) -> None:
    def task(_: int) -> bool:
        outer = threading.get_ident()
        return all(inner == outer for inner in run(lambda _: threading.get_ident(), range(4)))

    with use_threads(3):
        assert all(run(task, range(6)))


@both
@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_cancels_the_tasks_that_have_not_started(run: Run, threads: int) -> None:
    started: list[int] = []

    def task(i: int) -> None:
        started.append(i)
        time.sleep(0.005)
        if i == 0:
            raise KeyboardInterrupt

    with use_threads(threads), pytest.raises(KeyboardInterrupt):
        run(task, range(1000))
    assert len(started) < 100


@compiled()
def _count_rows(team, bounds, seen, room):  # type: ignore[no-untyped-def]
    on_team(team, _count, (team, bounds, seen, room))


@compiled()
def _count(team, bounds, seen, room):  # type: ignore[no-untyped-def]
    if not joins(team):
        return
    rows = take_rows(team, bounds)
    while rows[0] < rows[1]:
        memory = np.empty(room)
        for row in range(rows[0], rows[1]):
            seen[row] += len(memory) > 0
        rows = take_rows(team, bounds)


@pytest.mark.parametrize("has_team", [True, False])
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(("m", "height"), [(1, 1), (1000, 7), (3, 5)])
def test_threads_share_the_tasks_of_a_kernel(
    has_team: bool, threads: int, m: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_team:
        monkeypatch.setattr(threads_module, "_run_team_address", lambda: 0)
    seen = np.zeros(m, np.int64)
    with use_threads(threads):
        run_kernel(lambda team: _count_rows(team, (m, height), seen, 1), -(-m // height))
    assert seen.tolist() == [1] * m


def test_a_kernel_may_have_fewer_threads_than_torch() -> None:
    seen = np.zeros(50, np.int64)
    with use_threads(2):
        torch.set_num_threads(4)
        run_kernel(lambda team: _count_rows(team, (50, 3), seen, 1), 17)
        assert torch.get_num_threads() == 4
    assert seen.tolist() == [1] * 50


@pytest.mark.parametrize("threads", [1, 2])
def test_a_kernel_without_memory_fails(threads: int) -> None:
    seen = np.zeros(50, np.int64)
    with use_threads(threads), pytest.raises(MemoryError):
        run_kernel(lambda team: _count_rows(team, (50, 3), seen, 1 << 55), 17)

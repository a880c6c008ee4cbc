"""Calls reach an executor a bounded number at a time, and what they need runs once, before them."""

from concurrent.futures import Executor, Future, ThreadPoolExecutor
from threading import Lock
from typing import Any

import pytest

from vqzoo.calls.schedule import Call, run_calls

HISTORY: list[str] = []
LOCK = Lock()


def note(name: str) -> str:
    with LOCK:
        HISTORY.append(name)
    return name


def fail(name: str) -> None:
    note(name)
    raise ValueError(name)


@pytest.fixture(autouse=True)
def history() -> list[str]:
    HISTORY.clear()
    return HISTORY


class Counting(Executor):
    """Finishes each call when the next one, or nothing, comes; counts those that wait."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Any]] = []
        self.most = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, fn(*args)))
        self.most = max(self.most, len(self.waiting))
        if len(self.waiting) == 5:
            for done, value in self.waiting:
                done.set_result(value)
            self.waiting.clear()
        return future


def test_every_call_finishes_with_its_own_future() -> None:
    calls = [Call(str(number), note, str(number)) for number in range(200)]
    with ThreadPoolExecutor(4) as executor:
        finished = {call.key: future.result() for call, future in run_calls(calls, executor)}
    assert finished == {str(number): str(number) for number in range(200)}


@pytest.mark.parametrize("step", [note, fail])
def test_what_calls_need_runs_once_and_before_them_whatever_comes_of_it(
    step: Any, history: list[str]
) -> None:
    both, first = Call("both", step, "both"), Call("first", note, "first")
    calls = [Call(f"a{i}", note, f"a{i}", (first, both)) for i in range(20)]
    calls += [Call(f"b{i}", note, f"b{i}", (both,)) for i in range(20)]
    with ThreadPoolExecutor(4) as executor:
        finished = [call.key for call, _ in run_calls(calls, executor)]
    assert sorted(finished) == sorted(["both", "first", *(call.key for call in calls)])
    assert sorted(history) == sorted(finished)
    assert all(history.index(f"{kind}{i}") > history.index("both") for kind in "ab" for i in (0, 9))
    assert all(history.index(f"a{i}") > history.index("first") for i in range(20))


def test_calls_are_taken_as_others_finish() -> None:
    taken = 0

    def source() -> Any:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield Call(str(number), note, str(number))

    executor = Counting()
    for finished, _ in enumerate(run_calls(source(), executor, in_flight=5), start=1):
        assert taken <= finished + 5
    assert executor.most <= 5
    assert finished == 100


def test_large_calls_count_for_several() -> None:
    executor = Counting()
    calls = [Call(str(number), note, str(number), size=2) for number in range(20)]
    waiting = run_calls(calls, executor, in_flight=9)
    finished = [call.key for call, _ in waiting]
    assert len(finished) == 20
    assert executor.most == 5


class Holding(Executor):
    """Finishes the first call, and starts no other."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.futures.append(future)
        if len(self.futures) == 3:
            self.futures[0].set_result(None)
        return future


def test_stopping_early_cancels_what_has_not_started() -> None:
    executor = Holding()
    running = run_calls([Call(str(number), note, str(number)) for number in range(9)], executor)
    first, _ = next(running)
    assert first.key == "0"
    running.close()
    assert [future.cancelled() for future in executor.futures] == [False, True, True]

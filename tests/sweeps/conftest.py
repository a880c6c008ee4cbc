"""What all tests of this folder share: one small sweep, run by processes, and a page's script."""

from concurrent.futures import Future
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from sweeping import GRID, TWO_WORKERS, Swept, sweep
from vqzoo_executors import local
from vqzoo_executors.calls import CallExecutor, answer, settle

from vqzoo.artifact.files import cache_folder
from vqzoo.page.library import chart_library


class InThisProcess(CallExecutor):
    """Answers a call at once, as a worker would."""

    def __init__(self, processes: int, threads: int) -> None:
        self._threads, self._lock, self._closed = threads, Lock(), False

    def _take(self, future: "Future[Any]", call: bytes) -> None:
        future.set_running_or_notify_cancel()
        settle(future, answer(call, self._threads))


@pytest.fixture
def no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `local` work in this process, for tests to which it does not matter who works: to start a
    worker takes longer than its cells."""
    monkeypatch.setattr(local, "LocalExecutor", InThisProcess)


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """The sweep, run by two processes."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "grid.yaml").write_text(GRID)
    return sweep(folder, *TWO_WORKERS)


@pytest.fixture(scope="session")
def chart_script() -> Path:
    """The script of all pages, which takes a second to make, for a test's own cache."""
    chart_library()
    (script,) = cache_folder().glob("vega-*.js")
    return script

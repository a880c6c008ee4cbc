"""Collects the results of a run, prints them as ratios, and plots them."""

from pathlib import Path

import faiss
import pytest
import torch
from bars import Measured, bars
from report import Result, plot, sgemm_rate, table

_RESULTS = pytest.StashKey[list[Result]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RESULTS] = []
    faiss.omp_set_num_threads(torch.get_num_threads())


@pytest.fixture
def results(request: pytest.FixtureRequest) -> list[Result]:
    return request.config.stash[_RESULTS]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    results = config.stash[_RESULTS]
    if not results:
        return
    path = Path(config.rootpath) / ".benchmarks" / "clustering.png"
    plot(results, path)
    sgemm = sgemm_rate()
    terminalreporter.write_line(table(results))
    terminalreporter.write_line(
        f"peaks are of memory above what was held before, in weights; "
        f"~ extrapolated from a part of the problem; sgemm here: {sgemm:.0f} GFLOP/s; "
        f"plot: {path.relative_to(config.rootpath)}"
    )
    for bar in bars(Measured(results, sgemm)):
        terminalreporter.write_line(str(bar))

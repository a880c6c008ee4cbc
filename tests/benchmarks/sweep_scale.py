"""What a sweep costs beside its cells.

`python sweep_scale.py cells`: 16 cells of the embedded networks, by one process and by two.
`python sweep_scale.py empty [N] [EXECUTOR]`: N cells (10,000) that do nothing, by an executor
(local:2): what the driver takes for each.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

from vqzoo.calls.engines import started_executor
from vqzoo.execution.cell import Cell, Outcome
from vqzoo.plugin import CallResources
from vqzoo.plugin.manager import installed_plugins
from vqzoo.progress import SilentWatcher
from vqzoo.report.record_file import load_record
from vqzoo.runs.recipe import make_recipe
from vqzoo.runs.run import run
from vqzoo.sweeps.grid import read_grid
from vqzoo.sweeps.sweep import sweep, sweep_cells

GRID = {
    "models": ["mobilenet_mini.fmnist", "vit_mini.fmnist"],
    "methods": ["pq", "km", "rtn", "svd"],
    "ratios": [6, 12],
    "layers": ["all"],
    "images": 2000,
}
MB = 10**6


def compare_processes() -> None:
    """Print wall-clock time and memory of the same cells by one process and by two."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "grid.yaml").write_text(json.dumps(GRID))  # JSON is YAML
        # Kernels are compiled before anything is timed.
        sweep_in(folder, "warm", "local:1", "--limit", "4")
        times = [sweep_in(folder, name, name) for name in ("local:1", "local:2")]
        print(f"local:2 takes {times[1] / times[0]:.2f} of the time of local:1")


def sweep_in(folder: Path, out: str, executor: str, *arguments: str) -> float:
    """Sweep in a process of its own; seconds."""
    words = ["-m", "vqzoo.cli.main", "sweep", "grid.yaml", "--out", out, "--executor", executor]
    start = time.perf_counter()
    driver = subprocess.Popen([sys.executable, *words, *arguments], cwd=folder)
    stop = Event()
    peaks = {"all": 0, "driver": 0}
    watch = Thread(target=sample, args=(driver.pid, peaks, stop))
    watch.start()
    code = driver.wait()
    seconds = time.perf_counter() - start
    stop.set()
    watch.join()
    assert code == 0
    logs = "".join(path.read_text() for path in (folder / out / "logs").iterdir())
    print(
        f"{out}: {seconds:.1f} s, {logs.count('finished')} cells, peak of all processes together "
        f"{peaks['all'] / MB:,.0f} MB, of the driver {peaks['driver'] / MB:,.0f} MB, dense "
        f"networks evaluated {logs.count('evaluating the dense model')} times"
    )
    return seconds


def sample(driver: int, peaks: dict[str, int], stop: Event) -> None:
    """Note the peak of proportional set sizes: pages that processes share count once."""
    while not stop.wait(0.2):
        sizes = {pid: memory(pid) for pid in [driver, *children(driver)]}
        peaks["all"] = max(peaks["all"], sum(sizes.values()))
        peaks["driver"] = max(peaks["driver"], sizes[driver])


def children(pid: int) -> list[int]:
    """The processes that a process started, and theirs."""
    result = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in map(int, task.read_text().split()):
                result += [child, *children(child)]
        except OSError:
            continue
    return result


def memory(pid: int) -> int:
    """Bytes of a process; 0 if it has ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(1024 * int(row.split()[1]) for row in rollup.splitlines() if row.startswith("Pss:"))


class Empty(Executor):
    """Runs `nothing` in the place of every cell."""

    def __init__(self, inner: Executor) -> None:
        self._inner = inner

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Submit a cell's call."""
        return self._inner.submit(nothing, *args)


def nothing(cell: Cell) -> Outcome:
    """An outcome as large as a real one."""
    return Outcome(load_record(Path(os.environ["SWEEP_SCALE_RECORD"])))


def run_empty_cells(count: int, engine: str) -> None:
    """Print what the driver takes for cells that do nothing."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        recipe = make_recipe({"model": "test_resnet", "weights": "random", "method": "km"})
        os.environ["SWEEP_SCALE_RECORD"] = str(
            run(recipe, SilentWatcher(), out=folder / "real").folder
        )
        grid = {"models": ["test_resnet"], "methods": ["km"], "seeds": list(range(count))}
        (folder / "grid.yaml").write_text(json.dumps(grid | {"weights": "random"}))
        before, busy = peak(), time.process_time()
        cells = sweep_cells(read_grid(folder / "grid.yaml"), folder / "out")
        planned = time.process_time() - busy
        print(f"{len(cells):,} cells: planned in {planned:.1f} s of the driver")
        plugins = installed_plugins()
        with started_executor(engine, CallResources(cpus=1), plugins) as executor:
            assert executor is not None
            executor.submit(nothing, cells[0]).result()  # a process has started
            start, busy = time.perf_counter(), time.process_time()
            result = sweep(cells, folder / "out", Empty(executor), SilentWatcher())
            seconds, busy = time.perf_counter() - start, time.process_time() - busy
        assert result.done == count
        print(
            f"{engine}: run in {seconds:.1f} s; the driver computed {1000 * busy / count:.2f} ms a "
            f"cell, and its memory rose by {(peak() - before) / MB:.0f} to {peak() / MB:.0f} MB"
        )


def peak() -> int:
    """Peak of this process's resident memory, in bytes."""
    return 1024 * getrusage(RUSAGE_SELF).ru_maxrss


def main(kind: str, *rest: str) -> None:
    """Run what the command line says."""
    if kind == "cells":
        compare_processes()
    else:
        run_empty_cells(int(rest[0]) if rest else 10_000, rest[1] if rest[1:] else "local:2")


if __name__ == "__main__":
    import sweep_scale  # workers of Ray import calls by their module, and have another __main__

    sweep_scale.main(*sys.argv[1:])

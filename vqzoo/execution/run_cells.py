"""Run cells, in this process or through an executor."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import Any

from vqzoo.calls.schedule import run_calls
from vqzoo.errors import cause
from vqzoo.execution.cell import Cell, Outcome, run_cell, work_on_cell
from vqzoo.execution.shared_steps import with_shared_steps
from vqzoo.plugin.manager import Plugins
from vqzoo.progress import Watcher


def run_cells(
    cells: Sequence[Cell],
    executor: Executor | None,
    plugins: Plugins,
    watcher: Watcher,
    *,
    by_layer: bool = False,
) -> Iterator[tuple[Cell, Outcome]]:
    """Run cells, and yield each with its outcome as it finishes.

    Args:
        cells: with names that differ.
        executor: runs them; None runs one after another in this process.
        plugins: the installed plugins.
        watcher: receives the progress: of the runs in this process, or of the cells.
        by_layer: run one cell after another, each in this process with its layers side by side on
            the executor.
    """
    if executor is None:
        for cell in cells:
            watcher.say(cell.name)
            yield cell, run_cell(cell, watcher)
        return
    named = {cell.name: cell for cell in cells}
    done = 0
    with watcher.images("cells") as show:
        show(0, len(cells))
        if by_layer:
            for cell in cells:
                yield cell, work_on_cell(cell, executor)
                done += 1
                show(done, len(cells))
            return
        for call, future in run_calls(with_shared_steps(cells, plugins), executor):
            if call.key in named:
                yield named[call.key], _outcome(future)
                done += 1
                show(done, len(cells))
            elif (error := future.exception()) is not None:  # its cells then do it themselves
                watcher.say(f"{call.key} failed: {cause(error)}")


def _outcome(future: "Future[Any]") -> Outcome:
    error = future.exception()
    if error is None:
        outcome: Outcome = future.result()
        return outcome
    return Outcome(error=error if isinstance(error, Exception) else RuntimeError(cause(error)))

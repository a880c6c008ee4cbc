"""A cell: the work of one `vqzoo run`, and what came of it."""

import gc
import os
import pickle
import time
import traceback
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path

from vqzoo.artifact.schema import REPORT_FILE
from vqzoo.errors import VqzooError, cause
from vqzoo.execution.log import log_to
from vqzoo.plugin.execution.engine import WorkerLost
from vqzoo.progress import Watcher
from vqzoo.report.record import Record
from vqzoo.runs.command_line import canonical_command
from vqzoo.runs.recipe import Recipe
from vqzoo.runs.run import run


@dataclass(frozen=True)
class Cell:
    """The work of one `vqzoo run`.

    Attributes:
        name: what it is called in messages; unique among the cells that run together.
        recipe: the request.
        folder: the artifact's folder. A finished one is kept if the same request made it.
        log: the file for what a run would print; only cells in other processes write it.
        shared: see `vqzoo.runs.run.run`.
        force: replace a finished folder of another request.
        fall_back: use an embedded relative of a model whose weights are not available.
        directory: what the recipe's paths are relative to.
    """

    name: str
    recipe: Recipe
    folder: Path
    log: Path
    shared: Path | None = None
    force: bool = False
    fall_back: bool = True
    directory: Path = field(default_factory=Path.cwd)


@dataclass(frozen=True)
class Outcome:
    """What came of a cell: a record or an error.

    Attributes:
        record: of the finished run; None if it failed.
        error: why it failed; None if it did not.
        existing: whether an earlier call had finished it.
        seconds: wall-clock time that the cell took.
    """

    record: Record | None = None
    error: Exception | None = None
    existing: bool = False
    seconds: float = 0.0

    @property
    def reason(self) -> str:
        """Why it failed, on one line; empty if it did not."""
        if self.error is None:
            return ""
        text = " ".join(str(self.error).split())
        expected = isinstance(self.error, VqzooError | OSError | WorkerLost) and text
        return text if expected else cause(self.error)


def run_cell(cell: Cell, watcher: Watcher) -> Outcome:
    """Run a cell in this process; an error becomes its outcome."""
    start, before = time.perf_counter(), _stamp(cell.folder)
    try:
        finished = run(
            cell.recipe,
            watcher,
            out=cell.folder,
            reuse=True,
            force=cell.force,
            fall_back=cell.fall_back,
            shared=cell.shared,
        )
        existing = _stamp(cell.folder) == before
        return Outcome(finished.record, None, existing, time.perf_counter() - start)
    except Exception as error:
        return Outcome(error=error, seconds=time.perf_counter() - start)
    finally:
        gc.collect()  # the network is gone before the next one comes


def work_on_cell(cell: Cell) -> Outcome:
    """Run a cell in a process that executes calls; what it says goes to its log."""
    with chdir(cell.directory), log_to(cell.log, os.getpid()) as log:
        log.say(canonical_command(cell.recipe, cell.recipe.model))
        outcome = run_cell(cell, log)
        if outcome.error is not None:
            log.say(f"failed: {outcome.reason}")
            if not isinstance(outcome.error, VqzooError):
                log.say("".join(traceback.format_exception(outcome.error)).rstrip())
            return Outcome(error=_portable(outcome.error), seconds=outcome.seconds)
        log.say("finished by an earlier call" if outcome.existing else "finished")
        return outcome


def _portable(error: Exception) -> Exception:
    """The error without its frames, or, where it does not survive pickling, its text alone."""
    try:
        return pickle.loads(pickle.dumps(error))  # type: ignore[no-any-return]
    except Exception:
        return RuntimeError(cause(error))


def _stamp(folder: Path) -> int | None:
    report = folder / REPORT_FILE
    return report.stat().st_mtime_ns if report.is_file() else None

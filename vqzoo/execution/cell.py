"""A cell: the work of one `vqzoo run`, and what came of it."""

import gc
import os
import pickle
import shutil
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from vqzoo.artifact.files import cache_folder, sha256_text
from vqzoo.artifact.schema import CONFIG_FILE, REPORT_FILE
from vqzoo.errors import VqzooError, cause
from vqzoo.execution.log import LogWatcher, log_to
from vqzoo.plugin.execution.engine import WorkerLost
from vqzoo.progress import Watcher
from vqzoo.report.record import Record
from vqzoo.runs.command_line import canonical_command
from vqzoo.runs.recipe import Recipe
from vqzoo.runs.run import run, why_one_by_one
from vqzoo.storage.shared import SharedFolder
from vqzoo.storage.store import Store, files_in

RECORD_BYTES = 64 << 20  # of a record in a store


@dataclass(frozen=True)
class Cell:
    """The work of one `vqzoo run`.

    Attributes:
        name: what it is called in messages; unique among the cells that run together.
        recipe: the request.
        folder: the artifact's folder. A finished one is kept if the same request made it.
        log: the file for what a run would print; only cells in other processes write it.
        shared: see `vqzoo.runs.run.run`.
        store: where the folder and the log go, by these names; a worker then keeps them, and what
            is shared, in its cache until they are there. None leaves them in their places.
        force: replace a finished folder of another request.
        fall_back: use an embedded relative of a model whose weights are not available.
        directory: what the recipe's paths are relative to.
    """

    name: str
    recipe: Recipe
    folder: Path
    log: Path
    shared: SharedFolder | None = None
    force: bool = False
    fall_back: bool = True
    directory: Path = field(default_factory=Path.cwd)
    store: Store | None = None


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


def run_cell(cell: Cell, watcher: Watcher, executor: Executor | None = None) -> Outcome:
    """Run a cell in this process, and its layers by an executor if there is one; an error becomes
    its outcome."""
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
            executor=executor,
        )
        existing = _stamp(cell.folder) == before
        return Outcome(finished.record, None, existing, time.perf_counter() - start)
    except Exception as error:
        return Outcome(error=error, seconds=time.perf_counter() - start)
    finally:
        gc.collect()  # the network is gone before the next one comes


def work_on_cell(cell: Cell, executor: Executor | None = None) -> Outcome:
    """Run a cell where calls are executed; what it says goes to its log.

    Args:
        cell: the cell.
        executor: compresses the cell's layers side by side if they do not depend on each other.
    """
    try:
        with at_work(cell) as (here, log, uploads):
            log.say(canonical_command(cell.recipe, cell.recipe.model))
            if executor is not None and (reason := why_one_by_one(cell.recipe)) is not None:
                log.say(f"layers one after another: {reason}")
                executor = None
            if cell.store is None:
                outcome = run_cell(here, log, executor)
            else:
                outcome = _run_for_store(cell, here, log, executor, uploads)
            if outcome.error is None:
                log.say("finished by an earlier call" if outcome.existing else "finished")
                if cell.store is not None and uploads:  # the last line of a log that goes along
                    log.say(f"uploading to {cell.store.url}/{cell.folder.as_posix()}")
            else:
                log.say(f"failed: {outcome.reason}")
                if not isinstance(outcome.error, VqzooError):
                    log.say("".join(traceback.format_exception(outcome.error)).rstrip())
        if cell.store is not None and outcome.error is None:
            shutil.rmtree(here.folder)
    except VqzooError as error:  # of the store
        return Outcome(error=error)
    if outcome.error is None:
        return outcome
    return Outcome(error=_portable(outcome.error), seconds=outcome.seconds)


@contextmanager
def at_work(cell: Cell) -> Iterator[tuple[Cell, LogWatcher, dict[str, Path]]]:
    """Be where a cell's paths are those of its driver; what the block says goes to the cell's log.

    Yields:
        The cell, with folders of this machine if it belongs to a store; its log; and an empty
        dictionary, into which the block puts the files to upload, name -> path. After the block,
        unless it fails, they are in the store with the log, records last.

    Raises:
        VqzooError: the store cannot be written.
    """
    here = _on_this_machine(cell)
    uploads: dict[str, Path] = {}
    with chdir(here.directory), log_to(here.log, os.getpid()) as log:
        yield here, log, uploads
    if cell.store is not None:
        records = [name for name in uploads if name.endswith(f"/{REPORT_FILE}")]
        cell.store.put_files({cell.log.as_posix(): here.log, **uploads}, last=records)
        here.log.unlink()


def _on_this_machine(cell: Cell) -> Cell:
    if cell.store is None:
        return cell
    # What is shared is kept for each sweep, so that its user may delete it with the sweep.
    home = cache_folder().resolve() / "sweeps" / sha256_text(cell.store.url)[:16]
    shared = cell.shared and replace(cell.shared, folder=home / cell.shared.folder)
    directory = cell.directory if cell.directory.is_dir() else Path.cwd()
    return replace(
        cell, folder=home / cell.folder, log=home / cell.log, shared=shared, directory=directory
    )


def _run_for_store(
    cell: Cell,
    here: Cell,
    watcher: Watcher,
    executor: Executor | None,
    uploads: dict[str, Path],
) -> Outcome:
    """Run a cell on this machine, unless the store has its record; name the files to upload."""
    assert cell.store is not None
    name = cell.folder.as_posix()
    try:
        # Where the record is damaged or another request's, the run replaces the folder.
        known = all(
            cell.store.fetch(f"{name}/{file}", here.folder / file, RECORD_BYTES)
            for file in (CONFIG_FILE, REPORT_FILE)
        )
    except VqzooError as error:
        return Outcome(error=error)
    outcome = run_cell(replace(here, force=True), watcher, executor)
    if outcome.error is None and not (known and outcome.existing):
        uploads |= {f"{name}/{file}": here.folder / file for file in files_in(here.folder)}
    return outcome


def _portable(error: Exception) -> Exception:
    """The error without its frames, or, where it does not survive pickling, its text alone."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(cause(error))


def _stamp(folder: Path) -> int | None:
    report = folder / REPORT_FILE
    return report.stat().st_mtime_ns if report.is_file() else None

"""Run the cells of a grid: those that are missing."""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from vqzoo.artifact.files import sha256_file
from vqzoo.execution.cell import Cell, Outcome
from vqzoo.execution.run_cells import run_cells
from vqzoo.plugin.files import plugin_files
from vqzoo.plugin.manager import Plugins, installed_plugins
from vqzoo.progress import Watcher
from vqzoo.report.record import Record
from vqzoo.runs.recipe import Recipe
from vqzoo.runs.recipe_hash import recipe_hash
from vqzoo.storage.shared import SharedFolder
from vqzoo.storage.store import Store
from vqzoo.sweeps.place import (
    CELLS,
    LOGS,
    SHARED,
    Place,
    finished_cells,
    open_table,
    place_lock,
)
from vqzoo.sweeps.results import Results, Row


@dataclass(frozen=True)
class SweepResult:
    """What stands after a sweep.

    Attributes:
        done: how many cells of the grid are finished.
        failed: the rows of those that failed, in this call or an earlier one.
        left: how many have not run.
    """

    done: int
    failed: list[Row]
    left: int


def sweep_cells(recipes: Sequence[Recipe], out: Place) -> list[Cell]:
    """The cells of recipes; each is named by the hash of its request, and so is its folder."""
    store = out if isinstance(out, Store) else None
    base = out.resolve() if isinstance(out, Path) else Path()
    versions: dict[tuple[Path, ...], dict[str, str]] = {}
    cells: dict[str, Cell] = {}
    for recipe in recipes:
        if recipe.plugins not in versions:
            with plugin_files(recipe.plugins):
                statuses = installed_plugins().statuses
            versions[recipe.plugins] = {s.origin.distribution: s.origin.version for s in statuses}
        weights = recipe.weights if recipe.checkpoint is None else _file_hash(recipe.checkpoint)
        digest = recipe_hash(recipe, recipe.model, weights, versions[recipe.plugins])[:16]
        cells[digest] = Cell(
            name=digest,
            recipe=recipe,
            folder=base / CELLS / digest,
            log=base / LOGS / f"{digest}.log",
            shared=SharedFolder(base / SHARED, None if store is None else store.below(SHARED)),
            fall_back=False,
            store=store,
        )
    return list(cells.values())


def missing_cells(
    cells: Sequence[Cell], out: Place, results: Results, *, retry_failed: bool = False
) -> list[Cell]:
    """The cells that have neither finished nor, unless these are retried, failed."""
    states, finished = results.states(), finished_cells(out, cells)
    settled = {name for name, state in states.items() if state == "done"} & finished
    if not retry_failed:
        settled |= {name for name, state in states.items() if state == "failed"}
    return [cell for cell in cells if cell.name not in settled]


def sweep(
    cells: Sequence[Cell],
    out: Place,
    executor: Executor,
    watcher: Watcher,
    *,
    limit: int | None = None,
    retry_failed: bool = False,
    by_layer: bool = False,
) -> SweepResult:
    """Run the missing cells of a grid, and write a row for each into the results in `out`.

    Args:
        cells: of `sweep_cells`.
        out: the folder or URL for artifacts, logs, what cells share, and results.
        executor: runs the cells.
        watcher: receives progress and failures.
        limit: run at most this many cells.
        retry_failed: run cells again that failed in an earlier call.
        by_layer: run one cell after another, and the layers of each side by side.

    Raises:
        VqzooError: another process sweeps into the folder.
    """
    with place_lock(out), open_table(out, create=True) as results:
        missing = missing_cells(cells, out, results, retry_failed=retry_failed)[:limit]
        ran = run_cells(missing, executor, _plugins(cells), watcher, by_layer=by_layer)
        for cell, outcome in ran:
            row = _row(cell, outcome)
            results.write(row)
            if outcome.error is not None:
                watcher.say(f"{describe(row)} failed: {row.reason}")
        states = results.states()
        names = {cell.name for cell in cells}
        failed = [row for row in results.rows([("state", "=", "failed")]) if row.cell in names]
        done = sum(states.get(name) == "done" for name in names)
    return SweepResult(done, failed, len(names) - done - len(failed))


def describe(row: Row) -> str:
    """A cell in a few words: "resnet18 pq k=256 at 16x"."""
    rate = None if row.requested_ratio is None else f"at {row.requested_ratio:g}x"
    rate = rate or (None if row.requested_size is None else f"in {row.requested_size}")
    seed = f"seed {row.seed}" if row.seed else None
    words = (row.model, row.method, row.options, rate, row.layers, seed)
    return " ".join(word for word in words if word)


def new_row(cell: Cell) -> Row:
    """The row of a cell that has not run."""
    recipe = cell.recipe
    return Row(
        cell=cell.name,
        state="failed",
        reason=None,
        folder=f"{CELLS}/{cell.folder.name}",
        log=f"{LOGS}/{cell.log.name}",
        model=recipe.model,
        method=recipe.method or recipe.label,
        options=" ".join(f"{name}={value}" for name, value in sorted(recipe.options.items())),
        requested_ratio=recipe.ratio,
        requested_size=recipe.size,
        layers=",".join(recipe.layers),
        seed=recipe.seed,
    )


@cache
def _file_hash(path: Path) -> str:
    return sha256_file(path)


def _plugins(cells: Sequence[Cell]) -> Plugins:
    """The installed plugins, with those in the files that any cell names."""
    files = dict.fromkeys(path for cell in cells for path in cell.recipe.plugins)
    with plugin_files(list(files)):
        return installed_plugins()


def _row(cell: Cell, outcome: Outcome) -> Row:
    row = new_row(cell)
    facts: dict[str, Any] = {"seconds": None if outcome.existing else round(outcome.seconds, 3)}
    if outcome.record is None:
        facts |= {"state": "failed", "reason": outcome.reason}
    else:
        facts |= {"state": "done", **_measured(outcome.record)}
    return replace(row, **facts)


def _measured(record: Record) -> dict[str, Any]:
    accuracy, agreement = record.accuracy, record.agreement
    facts: dict[str, Any] = {
        "file_bytes": record.bytes.file,
        "dense_bytes": record.bytes.dense,
        "ratio_layers": record.ratio.layers,
        "ratio_file": record.ratio.file,
        "command": record.command,
    }
    if agreement is not None:
        facts |= {"data": agreement.data, "images": agreement.images}
        facts |= {"agreement": agreement.top1, "kl": agreement.kl}
    if accuracy is not None:
        facts |= {"data": accuracy.data, "images": accuracy.images}
        facts |= {"top1": accuracy.compressed.top1, "dense_top1": accuracy.dense.top1}
        facts |= {"change": accuracy.difference.top1, "ci95": accuracy.difference.ci95}
    return facts

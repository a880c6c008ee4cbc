"""`vqzoo sweep`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqzoo.cli.commands.page.written import write_page_at, write_page_of
from vqzoo.cli.terminal import print_text, printable, resumable_command, stderr, stdout

if TYPE_CHECKING:
    from vqzoo.execution.cell import Cell
    from vqzoo.sweeps.place import Place
    from vqzoo.sweeps.sweep import SweepResult

_LISTED = 50


@resumable_command
def sweep(
    grid: Annotated[
        Path, typer.Argument(metavar="GRID.yaml", help="The grid.", show_default=False)
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="The folder for artifacts, logs and results, or a URL that fsspec can write: "
            "s3://bucket/sweep.",
            show_default=False,
        ),
    ],
    executor: Annotated[
        str,
        typer.Option(
            metavar="NAME[:ADDRESS]",
            help="Where cells run: local:N for N processes on this machine; `vqzoo plugins` lists "
            "further executors. [dim]default: local:1[/]",
            show_default=False,
        ),
    ] = "local:1",
    by_layer: Annotated[
        bool,
        typer.Option(
            "--by-layer",
            help="Run one cell after another, and the layers of each side by side: for few, large "
            "networks.",
        ),
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=0, help="Run at most so many cells. [dim]default: all[/]")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run cells again that failed.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only list the cells to run, their sizes and their time."),
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="CPU threads of a cell. [dim]default: an equal share[/]"),
    ] = None,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of a cell, 0.5 for half of one.")] = 0.0,
    memory: Annotated[
        str | None, typer.Option(help="Memory of a cell, for executors that reserve it: 4GB.")
    ] = None,
) -> None:
    """Run every cell of a grid: models, methods, options, ratios or sizes, seeds and layers.

    The grid is a YAML file with a list for each; its cells are their product. A cell is one
    [bold]vqzoo run[/]; its artifact goes to a folder named by the hash of the request, what it says
    to a log, and its figures to one table, which [bold]vqzoo results DIR[/] shows. The page
    report.html shows all artifacts (see [bold]vqzoo report[/]). A dense network is evaluated once
    for all of its cells.

    If a sweep is interrupted, run the same command again: only cells that are missing run.
    """
    from vqzoo.calls.engines import find_engine, started_executor
    from vqzoo.cli.progress import TerminalWatcher
    from vqzoo.plugin.execution.engine import CallResources
    from vqzoo.plugin.manager import installed_plugins
    from vqzoo.storage.store import Store
    from vqzoo.sweeps.grid import read_grid
    from vqzoo.sweeps.place import parse_place
    from vqzoo.sweeps.sweep import sweep as run_sweep
    from vqzoo.sweeps.sweep import sweep_cells

    plugins = installed_plugins()
    find_engine(executor, plugins)
    memory_bytes = None if memory is None else _bytes(memory)
    place = parse_place(out)
    cells = sweep_cells(read_grid(grid), place)
    if dry_run:
        _print_plan(cells, place, limit, retry_failed)
        return
    if isinstance(place, Store):
        place.check_writable()
    resources = CallResources(threads, gpus, memory_bytes)
    with (
        TerminalWatcher(stderr()) as watcher,
        started_executor(executor, resources, plugins) as started,
    ):
        assert started is not None
        result = run_sweep(
            cells,
            place,
            started,
            watcher,
            limit=limit,
            retry_failed=retry_failed,
            by_layer=by_layer,
        )
    _print_result(result, out)
    page = None
    if result.done:
        page = write_page_of(place) if isinstance(place, Path) else write_page_at(place)
    if page is not None:
        print_text(stdout(), f"page: {page}")
    if result.failed:
        raise typer.Exit(1)


def _bytes(text: str) -> int:
    from vqzoo.budget.file_size import parse_size
    from vqzoo.errors import UsageError

    try:
        return parse_size(text)
    except ValueError as error:
        raise UsageError(f"--memory {text}: {error}") from None


def _print_result(result: "SweepResult", out: str) -> None:
    from vqzoo.report.formatting import count_of
    from vqzoo.sweeps.sweep import describe

    console = stdout()
    for row in result.failed:
        text = f"{describe(row)} failed: {row.reason} (log: {out}/{row.log})"
        print_text(console, printable(text))
    total = result.done + len(result.failed) + result.left
    parts = [f"{result.done} done"]
    parts += [f"{len(result.failed)} failed; --retry-failed runs them again"] * bool(result.failed)
    parts += [f"{result.left} left"] * bool(result.left)
    print_text(console, f"{count_of(total, 'cell')}: {', '.join(parts)}")
    print_text(console, f"results: vqzoo results {out}")


def _print_plan(
    cells: "Sequence[Cell]", place: "Place", limit: int | None, retry_failed: bool
) -> None:
    from vqzoo.cli.tables import plain_table
    from vqzoo.report.formatting import count_of
    from vqzoo.sweeps.place import has_table, open_table
    from vqzoo.sweeps.plan import expected_seconds, plan_cells
    from vqzoo.sweeps.sweep import describe, missing_cells, new_row

    times: Mapping[tuple[str, str], float] = {}
    missing = list(cells)
    if has_table(place):
        with open_table(place) as results:
            times = results.seconds()
            missing = missing_cells(cells, place, results, retry_failed=retry_failed)
    to_run = missing[:limit]
    table = plain_table("cell", "request", "file bytes", numbers=("time",))
    for planned in plan_cells(to_run[:_LISTED], times):
        row = new_row(planned.cell)
        time = "?" if planned.seconds is None else f"{planned.seconds:.0f} s"
        table.add_row(row.cell[:8], printable(describe(row)), planned.size, time)
    console = stdout()
    console.print(table)
    if len(to_run) > _LISTED:
        print_text(console, f"and {count_of(len(to_run) - _LISTED, 'more cell')}")
    seconds = [expected_seconds(cell, times) for cell in to_run]
    known = [time for time in seconds if time is not None]
    total = f"{sum(known):,.0f} s of one worker, by the cells that have finished"
    if len(known) < len(seconds):
        lacking = len(seconds) - len(known)
        total += f"; unknown for {count_of(lacking, 'cell')} of models that none has finished for"
    print_text(
        console,
        f"{count_of(len(cells), 'cell')}: {len(cells) - len(missing)} settled, {len(to_run)} to "
        f"run; time: {total if known else 'not known before a cell has finished (--limit 1)'}",
    )

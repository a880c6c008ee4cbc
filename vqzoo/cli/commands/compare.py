"""`vqzoo compare`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vqzoo.cli.commands.evaluate import Task
from vqzoo.cli.commands.page.written import write_page_of
from vqzoo.cli.declared import takes
from vqzoo.cli.options import ExecutorName, OnlyJson, Threads, need_epochs, need_folder
from vqzoo.cli.terminal import print_text, resumable_command, stderr, stdout
from vqzoo.errors import UsageError
from vqzoo.runs.recipe import Recipe, split_selectors

if TYPE_CHECKING:
    from rich.table import Table

    from vqzoo.comparison.accuracy import Comparison
    from vqzoo.comparison.retrieval import RetrievalComparison

# What all points of a comparison have in common.
_COMMON = (
    "checkpoint",
    "weights",
    "layers",
    "data",
    "images",
    "class_map",
    "skip_unreadable",
    "calibrate",
    "finetune",
    "seed",
    "device",
    "plugins",
)


@resumable_command
@takes(Recipe, only=_COMMON, last=True)
def compare(
    fields: dict[str, Any],
    model: Annotated[
        str, typer.Argument(help="A timm model: alexnet_mini.fmnist.", show_default=False)
    ],
    methods: Annotated[
        str | None,
        typer.Option(help="Methods, joined by commas. [dim]default: all that are installed[/]"),
    ] = None,
    ratios: Annotated[
        str, typer.Option(help="Compression ratios to request, joined by commas.")
    ] = "4,6,8,12,16,20,24,32",
    task: Annotated[
        Task, typer.Option(help="accuracy, or retrieval as in `vqzoo eval --task retrieval`.")
    ] = Task.ACCURACY,
    out: Annotated[
        Path | None, typer.Option(help="Where artifacts go. [dim]default: <model>-compare[/]")
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace artifacts in that folder that differ."),
    ] = False,
    executor: ExecutorName = None,
    threads: Threads = None,
    json_: OnlyJson = False,
) -> None:
    """Compress one model by several methods at several ratios: a table and a plot.

    Every point is an artifact on disk, read back and evaluated on the same images; ± is a 95%
    confidence interval of the paired difference from the dense model. The folder receives
    compare.json, compare.png and the page report.html (see `vqzoo report`). With --calibrate or
    --finetune every point is made without and with it, and the plot shows all curves. If a
    comparison is interrupted, run the same command again to resume.

    With --task retrieval the same artifacts are compared by mAP, into retrieval.json and
    retrieval.png; "asymmetric" means that the artifact's features search the dense model's
    database.
    """
    from vqzoo.calls.engines import started_executor
    from vqzoo.cli.progress import TerminalWatcher
    from vqzoo.comparison.accuracy import Comparison, largest_ratios
    from vqzoo.comparison.accuracy import compare as compare_methods
    from vqzoo.comparison.plot import draw, draw_retrieval
    from vqzoo.comparison.retrieval import compare_by_retrieval
    from vqzoo.numerics.threads import use_threads
    from vqzoo.plugin.execution.engine import CallResources
    from vqzoo.plugin.files import plugin_files
    from vqzoo.plugin.manager import installed_plugins

    try:
        targets = [float(text) for text in ratios.split(",")]
    except ValueError:
        raise UsageError(f"--ratios {ratios}: write numbers joined by commas: 8,16,32") from None
    with plugin_files(fields.get("plugins", [])):
        plugins = installed_plugins()
    names = list(split_selectors([methods])) if methods else plugins.quantizers.names()
    need_folder(out)
    folder = out or Path(f"{model.replace('/', '-').replace(':', '-')}-compare")
    base = {"model": model, **fields}
    helped = "finetune" in fields or "calibrate" in fields
    if "finetune" in fields:
        need_epochs(fields["finetune"])
        if task is not Task.ACCURACY:
            raise UsageError("--finetune goes with --task accuracy")
    picture = folder / ("compare.png" if task is Task.ACCURACY else "retrieval.png")
    comparison: Comparison | RetrievalComparison
    with (
        use_threads(threads),
        TerminalWatcher(stderr()) as watcher,
        started_executor(executor, CallResources(threads), plugins) as started,
    ):
        how: dict[str, Any] = {"force": force, "executor": started}
        if task is Task.ACCURACY:
            comparison = compare_methods(base, names, targets, watcher, folder, **how)
            draw(comparison, picture)
            table, dense = _accuracy_table(comparison), comparison.dense_top1
        else:
            comparison = compare_by_retrieval(base, names, targets, watcher, folder, **how)
            draw_retrieval(comparison, picture)
            table, dense = _retrieval_table(comparison), comparison.dense_map
    page = write_page_of(folder)
    if json_:
        print(json.dumps(asdict(comparison), indent=2))
        return
    console = stdout()
    console.print(table)
    if dense is not None:
        print_text(
            console, f"dense: {dense:.2f}% on {comparison.images:,} images of {comparison.data}"
        )
    if isinstance(comparison, Comparison) and helped:
        for method, ratio in largest_ratios(comparison, 1.0).items():
            print_text(console, f"{method}: up to {ratio:.1f}x with less than 1 point lost")
    print_text(console, f"plot: {picture}")
    if page is not None:
        print_text(console, f"page: {page}")


def _accuracy_table(comparison: "Comparison") -> "Table":
    from vqzoo.report.formatting import decibels, points

    table = _table("layers", "file", "SQNR dB", "top-1", "change")
    for point in comparison.points:
        table.add_row(
            point.method,
            f"{point.ratio_layers:.1f}x",
            f"{point.ratio_file:.1f}x",
            decibels(point.row_sqnr_db),
            "-" if point.top1 is None else f"{point.top1:.2f}%",
            "-" if point.change is None else points(point.change, point.ci95),
        )
    return table


def _retrieval_table(comparison: "RetrievalComparison") -> "Table":
    from vqzoo.report.formatting import points

    table = _table("layers", "file", "mAP", "change", "asymmetric", "change")
    for point in comparison.points:
        table.add_row(
            point.method,
            f"{point.ratio_layers:.1f}x",
            f"{point.ratio_file:.1f}x",
            f"{point.map:.2f}%",
            points(point.change, point.ci95),
            f"{point.asymmetric_map:.2f}%",
            points(point.asymmetric_change, point.asymmetric_ci95),
        )
    return table


def _table(*titles: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("method")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    return table

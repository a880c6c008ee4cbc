"""`vqzoo compare`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vqzoo.cli.evaluate import Task
from vqzoo.cli.options import (
    DEVICE,
    SEED,
    FinetuneEpochs,
    LearningRate,
    OnlyJson,
    Threads,
    Train,
    TrainData,
    TrainImages,
    finetuning_fields,
    need_epochs,
)
from vqzoo.cli.terminal import command, stderr, stdout

if TYPE_CHECKING:
    from rich.table import Table

    from vqzoo.comparison.accuracy import Comparison
    from vqzoo.comparison.retrieval import RetrievalComparison


@command
def compare(
    model: Annotated[
        str, typer.Argument(help="A timm model: alexnet_mini.fmnist.", show_default=False)
    ],
    methods: Annotated[
        str | None,
        typer.Option(help="Methods, joined by commas. [dim]default: all that are installed[/]"),
    ] = None,
    ratios: Annotated[
        str, typer.Option(help="Ratios to ask each method for, joined by commas.")
    ] = "4,6,8,12,16,20,24,32",
    task: Annotated[
        Task, typer.Option(help="accuracy, or retrieval as in `vqzoo eval --task retrieval`.")
    ] = Task.ACCURACY,
    layers: Annotated[str, typer.Option(help="As in `vqzoo run`.")] = "dense",
    data: Annotated[str | None, typer.Option(help="As in `vqzoo run`.")] = None,
    images: Annotated[int | None, typer.Option(min=1, help="Measure on this many images.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights to compress.")] = None,
    weights: Annotated[str, typer.Option(help="pretrained or random.")] = "pretrained",
    out: Annotated[
        Path | None, typer.Option(help="Where artifacts go. [dim]default: <model>-compare[/]")
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace artifacts in its folder that were made otherwise."),
    ] = False,
    plugin: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE.py", help="A plugin in a single file, repeatable."),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="As in `vqzoo run`: weigh errors by what layers see."),
    ] = None,
    finetune: FinetuneEpochs = None,
    train_data: TrainData = None,
    train_images: TrainImages = None,
    train: Train = None,
    lr: LearningRate = None,
    seed: Annotated[int, SEED] = 0,
    device: Annotated[str, DEVICE] = "cpu",
    threads: Threads = None,
    json_: OnlyJson = False,
) -> None:
    """Compress one model by several methods at several ratios: a table and a plot.

    Every point is an artifact on disk, read back and evaluated on the same images; ± is a 95%
    confidence interval of the paired difference from the dense model. The folder receives
    compare.json and compare.png; a comparison that breaks off is taken up again. --calibrate and
    --finetune make every point once more, calibrated or fine-tuned by distillation, and draw all
    curves.

    With --task retrieval the same artifacts are compared by mAP, into retrieval.json and
    retrieval.png; "asymmetric" has their features as queries in the dense model's database.
    """
    import json
    from dataclasses import asdict

    from vqzoo.cli.options import split_selectors
    from vqzoo.cli.progress import TerminalWatcher
    from vqzoo.cli.threads import limit_threads
    from vqzoo.comparison.accuracy import Comparison, largest_ratios
    from vqzoo.comparison.accuracy import compare as compare_methods
    from vqzoo.comparison.plot import draw, draw_retrieval
    from vqzoo.comparison.retrieval import compare_by_retrieval
    from vqzoo.errors import UsageError
    from vqzoo.plugin.files import plugin_files
    from vqzoo.plugin.manager import installed_plugins

    try:
        wanted = [float(text) for text in ratios.split(",")]
    except ValueError:
        raise UsageError(f"--ratios {ratios}: write numbers joined by commas: 8,16,32") from None
    with plugin_files(plugin or []):
        installed = installed_plugins().quantizers.names()
    names = list(split_selectors([methods])) if methods else installed
    folder = out or Path(f"{model.replace('/', '-').replace(':', '-')}-compare")
    base: dict[str, Any] = {
        "model": model,
        "layers": split_selectors([layers]),
        "data": data,
        "images": images,
        "checkpoint": checkpoint,
        "weights": weights,
        "seed": seed,
        "device": device,
        "calibrate": calibrate,
        "plugins": tuple(plugin or []),
    }
    tuning = finetuning_fields(
        finetune, False, data=train_data, images=train_images, train=train, lr=lr
    )
    need_epochs(tuning)
    if tuning is not None and task is not Task.ACCURACY:
        raise UsageError("--finetune goes with --task accuracy")
    base["finetune"] = tuning
    picture = folder / ("compare.png" if task is Task.ACCURACY else "retrieval.png")
    comparison: Comparison | RetrievalComparison
    with limit_threads(threads), TerminalWatcher(stderr()) as watcher:
        if task is Task.ACCURACY:
            comparison = compare_methods(base, names, wanted, watcher, folder, force=force)
            draw(comparison, picture)
            table, dense = _accuracy_table(comparison), comparison.dense_top1
        else:
            comparison = compare_by_retrieval(base, names, wanted, watcher, folder, force=force)
            draw_retrieval(comparison, picture)
            table, dense = _retrieval_table(comparison), comparison.dense_map
    if json_:
        print(json.dumps(asdict(comparison), indent=2))
        return
    console = stdout()
    console.print(table)
    if dense is not None:
        console.print(
            f"dense: {dense:.2f}% on {comparison.images:,} images of {comparison.data}",
            markup=False,
        )
    if isinstance(comparison, Comparison) and (tuning is not None or calibrate is not None):
        for method, ratio in largest_ratios(comparison, 1.0).items():
            console.print(f"{method}: up to {ratio:.1f}x with less than 1 point lost", markup=False)
    console.print(f"plot: {picture}", markup=False, soft_wrap=True)


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


def _table(*figures: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("method")
    for title in figures:
        table.add_column(title, justify="right", no_wrap=True)
    return table

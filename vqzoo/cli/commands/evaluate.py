"""`vqzoo eval`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from vqzoo.cli.options import ArtifactPlugins, OnlyJson, Threads
from vqzoo.cli.terminal import command, print_text, printable, stderr, stdout


class Task(StrEnum):
    """How a network is measured."""

    ACCURACY = "accuracy"
    RETRIEVAL = "retrieval"


class Mode(StrEnum):
    """How an artifact runs."""

    DECODED = "decoded"
    CODES = "codes"


@command
def evaluate(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT|MODEL",
            help="An artifact's folder or repository (ORG/NAME), or a timm model.",
            show_default=False,
        ),
    ],
    task: Annotated[
        Task,
        typer.Option(
            help="accuracy, or retrieval: image search by features before the last layer."
        ),
    ] = Task.ACCURACY,
    reference: Annotated[
        str | None,
        typer.Option(metavar="ARTIFACT|MODEL", help="Also report the difference from this model."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="What to measure on: fmnist (embedded), imagefolder:PATH, or a timm data set. "
            "[dim]default: the model's own, where vqzoo ships it[/]"
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            min=1, help="Measure on this many images, evenly spaced. [dim]default: all[/]"
        ),
    ] = None,
    class_map: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Which class each folder of imagefolder:PATH is: lines 'FOLDER' (the line number "
            "is the class) or 'FOLDER NUMBER', or JSON. [dim]default: by name where the model's "
            "classes have names, else in natural order[/]",
        ),
    ] = None,
    skip_unreadable: Annotated[
        bool,
        typer.Option(
            "--skip-unreadable",
            help="Leave out images that cannot be read, and name them, instead of failing. Every "
            "image is read once more to find them.",
        ),
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Weights of the dense model, the first if both are dense: .safetensors, or a "
            "state dict saved by torch."
        ),
    ] = None,
    mode: Annotated[
        Mode,
        typer.Option(
            help="How artifacts run: with decoded weights, or from their codes (less memory, more "
            "time; outputs agree up to rounding)."
        ),
    ] = Mode.DECODED,
    plugin: ArtifactPlugins = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    threads: Threads = None,
    json_: OnlyJson = False,
) -> None:
    """Measure the accuracy of an artifact or a dense model, or how well it retrieves images.

    With --task retrieval every image is a query for the others of its class, by cosine similarity;
    mAP is the mean average precision. The labels are the data's: they need not be the model's
    classes. ± is a 95% confidence interval of the paired difference from --reference.
    """
    import json

    from vqzoo.cli.progress import TerminalWatcher
    from vqzoo.numerics.threads import use_threads
    from vqzoo.plugin.files import plugin_files
    from vqzoo.runs.measure import MeasureRequest, measure_accuracy, measure_retrieval

    request = MeasureRequest(
        subject,
        reference,
        data,
        images,
        checkpoint,
        device,
        mode.value,
        class_map,
        skip_unreadable,
    )
    measure = measure_accuracy if task is Task.ACCURACY else measure_retrieval
    with plugin_files(plugin or []), use_threads(threads), TerminalWatcher(stderr()) as watcher:
        result = measure(request, watcher)
    if json_:
        print(json.dumps(result, indent=2))
        return
    lines = _accuracy_lines(result) if task is Task.ACCURACY else _retrieval_lines(result)
    for line in lines:
        print_text(stdout(), line)


def _accuracy_lines(result: dict[str, Any]) -> list[str]:
    from vqzoo.report.formatting import points

    top5 = f", top-5 {result['top5']:.2f}%" if result["top5"] is not None else ""
    lines = [
        f"{result['model']}: top-1 {result['top1']:.2f}%{top5} "
        f"on {result['images']:,} images of {result['data']}"
    ]
    if "labels" in result:
        lines.append(f"labels: {printable(result['labels'])}")
    if reference := result.get("reference"):
        change = reference["difference"]
        lines.append(
            f"{reference['model']}: top-1 {reference['top1']:.2f}%; "
            f"difference {points(change['top1'], change['ci95'])} points"
        )
    return lines


def _retrieval_lines(result: dict[str, Any]) -> list[str]:
    from vqzoo.report.formatting import points

    at_10 = result["precision_at_10"]
    precision_at_10 = f", at 10 {at_10:.2f}%" if at_10 is not None else ""
    lines = [
        f"{result['model']}: mAP {result['map']:.2f}%, "
        f"precision at 1 {result['precision_at_1']:.2f}%{precision_at_10}, "
        f"{result['queries']:,} queries to {result['images']:,} images of {result['data']}"
    ]
    if reference := result.get("reference"):
        change, asymmetric = reference["difference"], reference["asymmetric"]
        lines.append(
            f"{reference['model']}: mAP {reference['map']:.2f}%; "
            f"difference {points(change['map'], change['ci95'])} points"
        )
        if asymmetric is not None:
            change = asymmetric["difference"]
            lines.append(
                f"queries of the first in a database of the second: mAP {asymmetric['map']:.2f}%; "
                f"difference {points(change['map'], change['ci95'])} points"
            )
    return lines

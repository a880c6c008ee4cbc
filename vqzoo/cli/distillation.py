"""The summary of `vqzoo distill`."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vqzoo.cli.terminal import printable
from vqzoo.report.formatting import megabytes, points
from vqzoo.runs.distill.record import DistillationRecord, NetworkRecord


def print_distillation(console: Console, record: DistillationRecord, folder: Path) -> None:
    """Print teacher and student side by side, and what became of the student."""
    console.print(_networks(record))
    console.print()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _lines(record):
        table.add_row(name, escape(printable(text)))
    table.add_row("student", escape(str(folder)))
    console.print(table)


def _networks(record: DistillationRecord) -> Table:
    accuracy = record.accuracy
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("model", overflow="fold")
    for title in ("parameters", "fp32 file", *(["top-1"] if accuracy else [])):
        table.add_column(title, justify="right", no_wrap=True)
    rows = [_row("teacher", record.teacher), _row("student", record.student)]
    if accuracy is not None:
        for row, scores in zip(rows, (accuracy.teacher, accuracy.student), strict=True):
            row.append(f"{scores.top1:.2f}%")
    for row in rows:
        table.add_row(*row)
    return table


def _row(role: str, network: NetworkRecord) -> list[str]:
    model = escape(printable(network.model))
    return [role, model, f"{network.parameters:,}", megabytes(network.bytes)]


def _lines(record: DistillationRecord) -> list[tuple[str, str]]:
    best = record.history[record.best_epoch]
    lines = [("learned from", record.data)]
    text = f"{record.best_epoch} of {len(record.history) - 1}"
    if best.validation_loss is not None and best.validation_top1 is not None:
        measure = "top-1" if record.labelled else "agreement with the teacher"
        text += f"; held out: loss {best.validation_loss:.4f}, {measure} "
        text += f"{best.validation_top1:.2f}%"
    lines.append(("best epoch", text))
    accuracy = record.accuracy
    if accuracy is None:
        lines.append(("accuracy", "not measured: --eval-data names images to measure on"))
    else:
        change = points(accuracy.difference.top1, accuracy.difference.ci95)
        lines.append(("difference", f"{change} points of top-1"))
        lines.append(("measured on", f"{accuracy.images:,} images of {accuracy.data}"))
        if accuracy.labels is not None:
            lines.append(("labels", accuracy.labels))
    for data, names in (record.unreadable or {}).items():
        lines.append(("left out", f"{len(names):,} images of {data} that cannot be read"))
    lines.append(("time", f"{record.seconds:.1f} s of training"))
    return lines

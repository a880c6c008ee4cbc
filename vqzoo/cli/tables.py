"""Records as tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vqzoo.cli.terminal import printable
from vqzoo.report.formatting import (
    by_reason,
    decibels,
    megabytes,
    method_text,
    nats,
    options_texts,
    points,
)

_NARROW = 76
_STEPS = {"compress": "compression", "finetune": "fine-tuning", "evaluate": "evaluation"}
_ENDLESS = 10_000


def print_record(console: Console, record: Mapping[str, Any], folder: Path) -> None:
    """The layer table and the summary of a run."""
    console.print(layer_table(record["layers"], console.width))
    console.print()
    console.print(_summary(record, folder))


def layer_table(rows: Sequence[Mapping[str, Any]], width: int) -> Table:
    """One row a compressed layer, with as much as fits: options first go those that are fixed,
    then all, then shapes; every figure stays."""
    shapes = width >= _NARROW
    for texts in (options_texts(rows, fixed=True), options_texts(rows, fixed=False)):
        table = _layer_table(rows, texts, shapes)
        if any(texts) and Console(width=_ENDLESS).measure(table).maximum <= width:
            return table
    return _layer_table(rows, [], shapes)


def _layer_table(rows: Sequence[Mapping[str, Any]], options: Sequence[str], shapes: bool) -> Table:
    methods = [method_text(row) for row in rows]
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("layer", overflow="fold", min_width=8)
    if shapes:
        table.add_column("shape", no_wrap=True)
    if len(set(methods)) > 1:
        table.add_column("method", no_wrap=True)
    if options:
        table.add_column("options", no_wrap=True)
    for title in ("bits/weight", "ratio", "SQNR dB", "bytes"):
        table.add_column(title, justify="right", no_wrap=True)
    for index, row in enumerate(rows):
        cells = [escape(printable(row["name"]))]
        if shapes:
            cells.append("×".join(str(size) for size in row["shape"]))
        if len(set(methods)) > 1:
            cells.append(escape(printable(methods[index])))
        if options:
            cells.append(escape(printable(options[index])))
        cells += [
            f"{row['bits_per_weight']:.2f}",
            f"{row['ratio']:.1f}x",
            decibels(row["sqnr_db"]),
            f"{row['bytes']:,}",
        ]
        table.add_row(*cells)
    return table


def _summary(record: Mapping[str, Any], folder: Path) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    ratio, size = record["ratio"], record["bytes"]
    theory = f", {ratio['theoretical']:.1f}x by the paper's formula" if ratio["theoretical"] else ""
    table.add_row("compressed layers", f"{ratio['layers']:.1f}x smaller on disk{theory}")
    table.add_row(
        "whole file",
        f"{ratio['file']:.1f}x smaller: {megabytes(size['dense'])} to {megabytes(size['file'])}",
    )
    if (codes := _codes(record["layers"])) is not None:
        table.add_row("codes", codes)
    if record["skipped"]:
        table.add_row("left dense", escape(_reasons(record["skipped"])))
    for name, text in _measured(record):
        table.add_row(name, text)
    seconds = record["seconds"]
    steps = [f"{text} {seconds[name]:.1f} s" for name, text in _STEPS.items() if name in seconds]
    table.add_row("time", f"{seconds['total']:.1f} s: {', '.join(steps)}")
    table.add_row("artifact", escape(str(folder)))
    return table


def _codes(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """What a code takes beside its entropy, None where methods store none."""
    count, stored, fixed, entropy = (
        sum(row["codes"][name] for row in rows)
        for name in ("count", "stored_bits", "fixed_bits", "entropy_bits")
    )
    if not count:
        return None
    return (
        f"{stored / count:.3f} bits each; their entropy {entropy / count:.3f}, "
        f"fixed width {fixed / count:.3f}"
    )


def _measured(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    accuracy, agreement = record["accuracy"], record["agreement"]
    if accuracy is not None:
        before, after = accuracy["dense"], accuracy["compressed"]
        change = accuracy["difference"]
        lines = [
            (
                "top-1",
                f"{before['top1']:.2f}% before, {after['top1']:.2f}% after: "
                f"{points(change['top1'], change['ci95'])} points",
            )
        ]
        if before["top5"] is not None:
            lines.append(("top-5", f"{before['top5']:.2f}% before, {after['top5']:.2f}% after"))
        return [
            *lines,
            ("measured on", escape(f"{accuracy['images']:,} images of {accuracy['data']}")),
        ]
    if agreement is not None:
        where = escape(f"{agreement['images']:,} images of {agreement['data']}, without labels")
        return [
            ("accuracy", "not measured"),
            ("agreement", f"{agreement['top1']:.2f}% of top-1 answers unchanged, "
             f"KL {nats(agreement['kl'])}"),
            ("measured on", where),
        ]  # fmt: skip
    again = escape(f"{record['command']} --data imagefolder:PATH")
    return [("accuracy", f"not measured; to measure it: {again}")]


def _reasons(skipped: Mapping[str, str]) -> str:
    """Layers left dense, those with the same reason together."""
    return "; ".join(
        f"{len(found)} layers ({reason})" if len(found) > 3 else f"{', '.join(found)} ({reason})"
        for reason, found in by_reason(skipped).items()
    )


def print_stages(console: Console, record: Mapping[str, Any]) -> None:
    """A table like Han, Mao, Dally's (2016, table 1): nothing where the run did not fine-tune."""
    if not record["stages"]:
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("stage", overflow="fold")
    table.add_column("packing", no_wrap=True)
    for title in ("bytes", "ratio", "held out"):
        table.add_column(title, justify="right", no_wrap=True)
    dense = record["bytes"]["dense"]
    for stage in record["stages"]:
        reached = stage.get("validation_top1")
        table.add_row(
            escape(printable(stage["method"])),
            escape(printable(stage.get("packing", "fp32"))),
            f"{stage['bytes']:,}",
            f"{dense / stage['bytes']:.1f}x",
            "-" if reached is None else f"{reached:.2f}%",
        )
    console.print(table)
    console.print()

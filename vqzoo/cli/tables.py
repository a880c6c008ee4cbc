"""Records as tables for the terminal."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vqzoo.cli.terminal import printable
from vqzoo.errors import CoverageWarning
from vqzoo.report.budget import BudgetRecord
from vqzoo.report.formatting import (
    by_reason,
    chosen_text,
    count_of,
    decibels,
    megabytes,
    nats,
    points,
    predicted_text,
)
from vqzoo.report.layer_record import LayerRecord
from vqzoo.report.measured import AgreementRecord
from vqzoo.report.record import Record, Seconds
from vqzoo.report.steps import NormsRecord, RecoveryRecord, RestRecord

_NARROW = 76  # columns; narrower terminals get no shapes
_UNLIMITED = 10_000
_LISTED = 20  # unreadable images; report.json has all


def plain_table(*titles: str, numbers: Sequence[str] = ()) -> Table:
    """A table without lines: columns of text, then columns of numbers."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    for title in numbers:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def print_record(console: Console, record: Record, folder: Path) -> None:
    """Print the layer table and the summary of a run."""
    losses = {} if record.budget is None else record.budget.layers
    console.print(layer_table(record.layers, console.width, losses))
    console.print()
    console.print(_summary(record, folder))


def warn_of_low_coverage(record: Record) -> None:
    """Warn where less than half of the network's weights are compressed."""
    if record.coverage is not None and (coverage := record.coverage.coverage()).low:
        warnings.warn(f"{coverage}", CoverageWarning, stacklevel=2)


def layer_table(
    layers: Sequence[LayerRecord], width: int, losses: Mapping[str, float] | None = None
) -> Table:
    """One row for each compressed layer, in at most `width` columns where possible.

    Where space is short, options that are the same throughout go first, then all options, then
    shapes. Figures always stay.

    Args:
        layers: the layers.
        width: columns of the terminal.
        losses: layer -> predicted loss, for a column beside the bytes.
    """
    shapes = width >= _NARROW
    for texts in (_options_texts(layers, fixed=True), _options_texts(layers, fixed=False)):
        table = _layer_table(layers, texts, shapes, losses or {})
        if any(texts) and Console(width=_UNLIMITED).measure(table).maximum <= width:
            return table
    return _layer_table(layers, [], shapes, losses or {})


def _layer_table(
    layers: Sequence[LayerRecord],
    options: Sequence[str],
    shapes: bool,
    losses: Mapping[str, float],
) -> Table:
    several_methods = len({layer.method_text for layer in layers}) > 1
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("layer", overflow="fold", min_width=8)
    if shapes:
        table.add_column("shape", no_wrap=True)
    if several_methods:
        table.add_column("method", no_wrap=True)
    if options:
        table.add_column("options", no_wrap=True)
    for title in ("bits/weight", "ratio", "SQNR dB", "bytes", *(["loss"] if losses else [])):
        table.add_column(title, justify="right", no_wrap=True)
    for index, layer in enumerate(layers):
        cells = [escape(printable(layer.name))]
        if shapes:
            cells.append("×".join(str(size) for size in layer.shape))
        if several_methods:
            cells.append(escape(printable(layer.method_text)))
        if options:
            cells.append(escape(printable(options[index])))
        cells += [
            f"{layer.bits_per_weight:.2f}",
            f"{layer.ratio:.1f}x",
            decibels(layer.sqnr_db),
            f"{layer.bytes:,}",
        ]
        if losses:
            cells.append(f"{losses[layer.name]:.2g}" if layer.name in losses else "-")
        table.add_row(*cells)
    return table


def _options_texts(layers: Sequence[LayerRecord], *, fixed: bool) -> list[str]:
    """The options of each layer: "k=256 d=8".

    Args:
        fixed: also show words and flags that are the same in all layers of a method.
    """
    values: dict[tuple[str, str], set[Any]] = {}
    for layer in layers:
        for name, value in layer.options.items():
            values.setdefault((layer.method, name), set()).add(value)
    shown = {
        option
        for option, distinct in values.items()
        if fixed or len(distinct) > 1 or _is_number(*distinct)
    }
    return [
        " ".join(
            f"{name}={value}"
            for name, value in layer.options.items()
            if value is not None and (layer.method, name) in shown
        )
        for layer in layers
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _summary(record: Record, folder: Path) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    ratio, size = record.ratio, record.bytes
    theory = f", {ratio.theoretical:.1f}x by the paper's formula" if ratio.theoretical else ""
    table.add_row("compressed layers", f"{ratio.layers:.1f}x smaller on disk{theory}")
    table.add_row(
        "whole file",
        f"{ratio.file:.1f}x smaller: {megabytes(size.dense)} to {megabytes(size.file)}",
    )
    if record.coverage is not None:
        table.add_row("coverage", record.coverage.coverage().summary)
    if (codes := _codes(record.layers)) is not None:
        table.add_row("codes", codes)
    if record.skipped:
        table.add_row("left dense", escape(_reasons(record.skipped)))
    if record.rest is not None:
        table.add_row("dense tensors", _rest(record.rest))
    if record.norms is not None:
        table.add_row("batch norms", escape(_norms(record.norms)))
    if record.recovery is not None:
        table.add_row("recovery", _recovery(record.recovery))
    for name, text in [*_budget(record), *_measurements(record)]:
        table.add_row(name, text)
    for data, names in record.unreadable.items():
        table.add_row("left out", escape(printable(_left_out(data, names))))
    table.add_row("time", _time(record.seconds))
    table.add_row("artifact", escape(str(folder)))
    return table


def _norms(norms: NormsRecord) -> str:
    text = f"{len(norms.folded)} folded into the layers before them"
    if norms.difference is not None:
        text += f", which changes answers by {norms.difference:.1g} of the largest"
    return text + (f"; not folded: {_reasons(norms.kept)}" if norms.kept else "")


def _recovery(recovery: RecoveryRecord) -> str:
    before, after = recovery.divergence.before, recovery.divergence.after
    learned = f"{count_of(recovery.images, 'image')}, {recovery.held_out} held out"
    return f"KL {nats(before)} before, {nats(after)} after, on the images held out ({learned})"


def _rest(rest: RestRecord) -> str:
    kept = f"; {len(rest.kept)} that it cannot hold in float32" if rest.kept else ""
    error = f"to within {100 * rest.error:.2g}% of the largest value" if rest.error else "exactly"
    return f"{rest.tensors} in {rest.dtype}, {error}{kept}"


def _codes(layers: Sequence[LayerRecord]) -> str | None:
    """Bits per code on disk, by entropy and at fixed width; None where no method stores codes."""
    codes = [layer.codes for layer in layers]
    count = sum(c.count for c in codes)
    if not count:
        return None
    return (
        f"{sum(c.stored_bits for c in codes) / count:.3f} bits each; "
        f"entropy {sum(c.entropy_bits for c in codes) / count:.3f}, "
        f"fixed width {sum(c.fixed_bits for c in codes) / count:.3f}"
    )


def _budget(record: Record) -> list[tuple[str, str]]:
    """What was foreseen of the network under a budget; what was measured follows."""
    budget = record.budget
    if budget is None:
        return []
    lines = [("price of a bit", f"λ = {budget.price:g} squared logits, after {_steps(budget)}")]
    if len(budget.methods) > 1:
        lines.append(("methods", escape(printable(chosen_text(record)))))
    if (predicted := predicted_text(record)) is not None:
        lines.append(("predicted", predicted))
    held_out = budget.held_out
    if held_out is not None:
        text = f"KL {nats(held_out.kl)}"
        if held_out.drop is not None:
            text += f", {points(-held_out.drop, held_out.ci95)} points of top-1"
        lines.append(("held out", f"{text}, on {escape(printable(held_out.data))}"))
        if held_out.drop_bound is not None:
            expected, most = (
                f"{-(value or 0):+.2f}" for value in (held_out.expected_drop, held_out.drop_bound)
            )
            lines.append(("", f"{expected} points expected, {most} at worst (95% confidence)"))
    return lines


def _steps(budget: BudgetRecord) -> str:
    return count_of(len(budget.steps), "step")


def _measurements(record: Record) -> list[tuple[str, str]]:
    accuracy, agreement = record.accuracy, record.agreement
    if accuracy is not None:
        before, after, change = accuracy.dense, accuracy.compressed, accuracy.difference
        lines = [
            (
                "top-1",
                f"{before.top1:.2f}% before, {after.top1:.2f}% after: "
                f"{points(change.top1, change.ci95)} points",
            )
        ]
        if before.top5 is not None and after.top5 is not None:
            lines.append(("top-5", f"{before.top5:.2f}% before, {after.top5:.2f}% after"))
        if agreement is not None:
            lines.append(("agreement", _agreement(agreement)))
        lines.append(("measured on", escape(f"{accuracy.images:,} images of {accuracy.data}")))
        if accuracy.labels is not None:
            lines.append(("labels", escape(printable(accuracy.labels))))
        return lines
    if agreement is not None:
        images = f"{agreement.images:,} unlabelled images of {agreement.data}"
        return [
            ("accuracy", "not measured"),
            ("agreement", _agreement(agreement)),
            ("measured on", escape(images)),
        ]
    command = escape(f"{record.command} --data imagefolder:PATH")
    return [("accuracy", f"not measured; to measure it, run: {command}")]


def _agreement(agreement: AgreementRecord) -> str:
    return f"{agreement.top1:.2f}% of top-1 predictions unchanged, KL {nats(agreement.kl)}"


def _reasons(skipped: Mapping[str, str]) -> str:
    """The layers left dense, grouped by the reason."""
    return "; ".join(
        f"{count_of(len(names), 'layer') if len(names) > 3 else ', '.join(names)} ({reason})"
        for reason, names in by_reason(skipped).items()
    )


def _left_out(data: str, names: Sequence[str]) -> str:
    """The images that cannot be read, in a line."""
    listed = ", ".join(names[:_LISTED]) + (
        f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    )
    return f"{count_of(len(names), 'image')} of {data} that cannot be read: {listed}"


def _time(seconds: Seconds) -> str:
    steps = {
        "compression": seconds.compress,
        "fine-tuning": seconds.finetune,
        "evaluation": seconds.evaluate,
    }
    texts = [f"{name} {value:.1f} s" for name, value in steps.items() if value is not None]
    return f"{seconds.total:.1f} s: {', '.join(texts)}"


def print_stages(console: Console, record: Record) -> None:
    """Print a table like Han, Mao, Dally's (2016, table 1); nothing for a run without stages."""
    if not record.stages:
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("stage", overflow="fold")
    table.add_column("packing", no_wrap=True)
    for title in ("bytes", "ratio", "held out"):
        table.add_column(title, justify="right", no_wrap=True)
    for stage in record.stages:
        top1 = stage.validation_top1
        table.add_row(
            escape(printable(stage.method)),
            escape(printable(stage.packing)),
            f"{stage.bytes:,}",
            f"{record.bytes.dense / stage.bytes:.1f}x",
            "-" if top1 is None else f"{top1:.2f}%",
        )
    console.print(table)
    console.print()

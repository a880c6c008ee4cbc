"""The sections of a model card that hold figures: sizes, accuracy, layers, memory."""

import math
from collections.abc import Mapping, Sequence

from vqzoo.artifact.reader import Artifact
from vqzoo.artifact.schema import PLOT_FILE, LayerEntry
from vqzoo.compression.view import layer_name
from vqzoo.report.card_metadata import data_set, method_names
from vqzoo.report.formatting import by_reason, count_of, decibels, megabytes, nats, points
from vqzoo.report.markdown import code, plain, table
from vqzoo.report.measured import AccuracyRecord, AgreementRecord
from vqzoo.report.record import Record


def size_section(artifact: Artifact, record: Record | None) -> str:
    """Sizes of the compressed weights and of the whole file, and the plot."""
    layers = artifact.metadata.layers
    dense = 4 * sum(math.prod(entry.shape) for entry in layers.values())
    stored = sum(artifact.layer_bytes(key) for key in layers)
    rows = [("compressed weights", megabytes(dense), megabytes(stored), f"{dense / stored:.1f}x")]
    if record is not None:
        size, ratio = record.bytes, record.ratio.file
        rows.append(("whole file", megabytes(size.dense), megabytes(size.file), f"{ratio:.1f}x"))
    text = "Every stored byte counts: codes, codebooks, scales and, for the whole file, its header."
    if record is not None and record.ratio.theoretical is not None:
        one_method = len(method_names(artifact)) == 1
        formula = (
            "formula in the method's paper" if one_method else "formulas in the methods' papers"
        )
        text += (
            f"\nBy the {formula} the ratio of the compressed weights is "
            f"{record.ratio.theoretical:.1f}x."
        )
    sizes = table(("", "fp32", "on disk", "ratio"), rows, right=(1, 2, 3))
    return f"## Size\n\n{sizes}\n\n{text}\n\n![Bytes on disk by layer]({PLOT_FILE})"


def accuracy_section(record: Record | None) -> str:
    """Accuracy before and after, or agreement with the dense model where that was measured."""
    if record is not None and record.accuracy is not None:
        left_out = _left_out(record.unreadable.get(record.accuracy.data, ()))
        return f"## Accuracy\n\n{_accuracy(record.accuracy, left_out)}"
    text = "The accuracy of this artifact was not measured."
    if record is not None and record.agreement is not None:
        text += " " + _agreement(record.agreement)
        text += _left_out(record.unreadable.get(record.agreement.data, ()))
    return f"## Accuracy\n\n{text}"


def _left_out(unreadable: Sequence[str]) -> str:
    """A sentence on images that cannot be read; empty if there are none."""
    if not unreadable:
        return ""
    return f" {count_of(len(unreadable), 'image')} could not be read and had to be left out."


def _accuracy(accuracy: AccuracyRecord, left_out: str) -> str:
    before, after, change = accuracy.dense, accuracy.compressed, accuracy.difference
    rows = [
        (
            "top-1",
            f"{before.top1:.2f}%",
            f"{after.top1:.2f}%",
            f"{points(change.top1, change.ci95)} points",
        )
    ]
    if before.top5 is not None and after.top5 is not None:
        gained = after.top5 - before.top5
        rows.append(("top-5", f"{before.top5:.2f}%", f"{after.top5:.2f}%", f"{gained:+.2f} points"))
    images = data_set(accuracy.data)
    where = plain(images.name) + (f", {images.split} split" if images.split else "")
    interval = " ± is the 95% confidence interval of the change." if change.ci95 is not None else ""
    return (
        f"Measured on {accuracy.images:,} images of {where}: the artifact, read back from disk, "
        f"and the dense model on the same images.{left_out}{interval}\n\n"
        + table(("", "dense", "compressed", "change"), rows, right=(1, 2, 3))
    )


def _agreement(agreement: AgreementRecord) -> str:
    return (
        f"On {agreement.images:,} unlabelled images of {plain(agreement.data)} it agrees with the "
        f"dense model in {agreement.top1:.2f}% of top-1 predictions (mean KL divergence "
        f"{nats(agreement.kl)})."
    )


def layers_section(artifact: Artifact, record: Record | None) -> str:
    """One row for each compressed layer, in the record's order, and the layers left dense."""
    errors = {layer.name: layer.sqnr_db for layer in record.layers} if record is not None else {}
    order = {name: position for position, name in enumerate(errors)}
    entries = {layer_name(key): (key, entry) for key, entry in artifact.metadata.layers.items()}
    rows = []
    for name in sorted(entries, key=lambda name: order.get(name, 0)):
        key, entry = entries[name]
        weights, stored = math.prod(entry.shape), artifact.layer_bytes(key)
        row = [
            code(name or key),
            "×".join(str(size) for size in entry.shape),
            code("+".join(entry.methods)),
            code(_options(entry)),
            f"{8 * stored / weights:.2f}" if weights else "-",
            f"{4 * weights / stored:.1f}x" if stored else "-",
        ]
        if errors:
            row.append(decibels(errors[name]) if name in errors else "-")
        rows.append([*row, f"{stored:,}"])
    titles = ["layer", "shape", "method", "options", "bits/weight", "ratio"]
    titles += [*(["SQNR dB"] if errors else []), "bytes"]
    section = "## Layers\n\n" + table(titles, rows, right=range(4, len(titles)))
    if record is not None and record.skipped:
        section += f"\n\nLeft dense: {_reasons(record.skipped)}."
    return section


def _options(entry: LayerEntry) -> str:
    options = sorted(entry.options.items())
    return ", ".join(f"{name}={value}" for name, value in options if value is not None)


def _reasons(skipped: Mapping[str, str]) -> str:
    groups = by_reason(skipped).items()
    return "; ".join(f"{_names(names)} ({plain(reason)})" for reason, names in groups)


def _names(names: Sequence[str]) -> str:
    return f"{len(names)} layers" if len(names) > 8 else ", ".join(code(name) for name in names)

"""What the page holds, as JSON values: one entry for each run."""

import math
from collections import Counter
from typing import Any

from vqzoo.page.collect import Run
from vqzoo.page.examples import Examples
from vqzoo.report.block import Options
from vqzoo.report.formatting import by_reason
from vqzoo.report.layer_record import LayerRecord
from vqzoo.report.record import Record

_MOST_METHODS = 3  # that a label names
# Columns of a layer's row, in the order of `_layer`; assets/details.js reads them by these names.
LAYER_COLUMNS = (
    "name", "kind", "shape", "method", "options", "bytes", "weights", "bits", "sqnr", "row_sqnr",
    "loss", "notes",
)  # fmt: skip


def run_entry(run: Run, examples: Examples | str | None) -> dict[str, Any]:
    """A run as the page shows it.

    Args:
        run: the run.
        examples: images whose answer changed; why there are none; None where nobody looked.
    """
    record = run.record
    weights = sum(math.prod(layer.shape) for layer in record.layers)
    stored = sum(layer.bytes for layer in record.layers)
    errors = [layer.row_sqnr_db for layer in record.layers if layer.row_sqnr_db is not None]
    return {
        "name": run.name,
        "network": record.model,
        "method": method_label(record),
        "options": _options(record.options),
        "source": record.weights,
        "seed": record.seed,
        "command": record.command,
        "bytes": record.bytes.file,
        "dense_bytes": record.bytes.dense,
        "layer_bytes": stored,
        "ratio": record.ratio.file,
        "ratio_layers": record.ratio.layers,
        "bits": 8 * stored / weights if weights else None,
        "sqnr": sum(errors) / len(errors) if errors else None,
        "seconds": record.seconds.total,
        "versions": record.versions,
        **_measured(record, examples),
        **_budget(record),
        "layers": [_layer(layer, record) for layer in record.layers],
        "skipped": by_reason(record.skipped),
        "examples": examples.to_json() if isinstance(examples, Examples) else examples,
    }


def method_label(record: Record) -> str:
    """The methods of a run's layers, and what was done besides: "pq, calibrated, fine-tuned"."""
    counts: Counter[str] = Counter()
    for layer in record.layers:
        counts[layer.method_text] += layer.bytes
    names = [name for name, _ in counts.most_common()]
    label = " & ".join(names) if 0 < len(names) <= _MOST_METHODS else record.method
    steps = {
        "calibrated": record.calibration,
        "repaired": record.repair,
        "fine-tuned": record.finetuning,
        "recovered": record.recovery,
    }
    return ", ".join([label, *(word for word, block in steps.items() if block is not None)])


def _measured(record: Record, examples: Examples | str | None) -> dict[str, Any]:
    """Accuracy and divergence; where the run measured no divergence, that of the examples."""
    entry: dict[str, Any] = dict.fromkeys(
        ("data", "images", "top1", "dense_top1", "lost", "ci95", "kl", "kl_on", "agree")
    )
    if (accuracy := record.accuracy) is not None:
        entry |= {
            "data": accuracy.data,
            "images": accuracy.images,
            "top1": accuracy.compressed.top1,
            "dense_top1": accuracy.dense.top1,
            "lost": -accuracy.difference.top1,
            "ci95": accuracy.difference.ci95,
        }
    if (agreement := record.agreement) is not None:
        entry |= {"data": agreement.data, "images": agreement.images}
        entry |= {"kl": agreement.kl, "agree": agreement.top1}
        entry["kl_on"] = f"{agreement.images:,} images of {agreement.data}"
    elif isinstance(examples, Examples):
        entry |= {"kl": examples.kl, "agree": examples.agree}
        entry["kl_on"] = f"{examples.images:,} images of {examples.data}, for this page"
    return entry


def _budget(record: Record) -> dict[str, Any]:
    budget, agreement = record.budget, record.agreement
    return {
        "price": None if budget is None else budget.price,
        "predicted": None if budget is None else budget.predicted_loss,
        "logit_change": None if agreement is None else agreement.logit_change,
    }


def _layer(layer: LayerRecord, record: Record) -> list[Any]:
    losses = {} if record.budget is None else record.budget.layers
    return [
        layer.name,
        layer.kind,
        "×".join(str(size) for size in layer.shape),
        layer.method_text,
        _options(layer.options),
        layer.bytes,
        math.prod(layer.shape),
        layer.bits_per_weight,
        layer.sqnr_db,
        layer.row_sqnr_db,
        losses.get(layer.name),
        list(layer.notes),
    ]


def _options(options: Options) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items() if value is not None)

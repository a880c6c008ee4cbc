"""An observer that writes a line of JSON for each layer and each run to the file RUNS_LOG."""

import json
import os
from typing import Any

from vqzoo.plugin import hookimpl

vqzoo_contract = 1


@hookimpl
def vqzoo_layer_compressed(layer: dict[str, Any], done: int, total: int) -> None:
    """Log a compressed layer. A hook may leave out arguments that it does not need."""
    keys = ("name", "method", "bits_per_weight", "sqnr_db")
    _write({"done": done, "total": total} | {key: layer[key] for key in keys})


@hookimpl
def vqzoo_run_finished(record: dict[str, Any], folder: str) -> None:
    """Log a finished run; `record` is the content of report.json."""
    _write({"folder": folder, "ratio": record["ratio"], "accuracy": record["accuracy"]})


def _write(line: dict[str, Any]) -> None:
    with open(os.environ.get("RUNS_LOG", "runs.jsonl"), "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")

"""An observer that writes finished runs for TensorBoard, by default in the folder `tensorboard`."""

import os
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from vqzoo.plugin import hookimpl

vqzoo_contract = 1


@hookimpl
def vqzoo_run_finished(record: dict[str, Any], folder: str) -> None:
    """Write a run; `record` is the content of report.json. Steps are layers, or epochs."""
    logs = Path(os.environ.get("TENSORBOARD_LOGS", "tensorboard"))
    with SummaryWriter(logs / Path(folder).name) as writer:
        writer.add_text("command", f"`{record['command']}`")
        writer.add_scalar("bytes", record["bytes"]["file"])
        writer.add_scalar("ratio", record["ratio"]["file"])
        if accuracy := record.get("accuracy"):  # a run without labels has none
            writer.add_scalar("top1_difference", accuracy["difference"]["top1"])
        for step, layer in enumerate(record["layers"], start=1):
            for key in ("bits_per_weight", "sqnr_db"):
                if layer[key] is not None:
                    writer.add_scalar(f"layers/{key}", layer[key], step)
        for epoch in (record.get("finetuning") or {}).get("history", []):
            writer.add_scalar("finetuning/loss", epoch["validation_loss"], epoch["epoch"])

"""An observer that logs finished runs to MLflow, where MLFLOW_TRACKING_URI says."""

from pathlib import Path
from typing import Any

import mlflow

from vqzoo.plugin import hookimpl

vqzoo_contract = 1


@hookimpl
def vqzoo_run_finished(record: dict[str, Any], folder: str) -> None:
    """Log a run; `record` is the content of report.json."""
    mlflow.set_experiment("vqzoo")
    with mlflow.start_run(run_name=Path(folder).name):
        asked = {key: record[key] for key in ("model", "method", "seed", "command")}
        mlflow.log_params({**asked, **record["options"]})
        mlflow.log_metrics({"bytes": record["bytes"]["file"], "ratio": record["ratio"]["file"]})
        if accuracy := record.get("accuracy"):  # a run without labels has none
            mlflow.log_metric("top1_difference", accuracy["difference"]["top1"])
        for step, layer in enumerate(record["layers"], start=1):
            mlflow.log_metric("layer_bits_per_weight", layer["bits_per_weight"], step)
        mlflow.log_artifact(str(Path(folder, "report.json")))

"""The observers of docs/observe.md write what TensorBoard and MLflow then read."""

import json
import warnings
from pathlib import Path

import pytest
from typer.testing import CliRunner

import vqzoo
from vqzoo.cli.main import app

EXAMPLES = Path(vqzoo.__file__).parents[1] / "docs" / "examples"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def record(plugin: str) -> dict:
    words = (
        "run alexnet_mini.fmnist -m km -o k=4 --layers classifier.6 --images 64 --out mine --json"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", vqzoo.errors.PluginWarning)
        result = CliRunner().invoke(app, [*words.split(), "--plugin", str(EXAMPLES / plugin)])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_tensorboard_reads_a_run() -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    report = record("to_tensorboard.py")
    events = accumulators.EventAccumulator("tensorboard/mine")
    events.Reload()

    def values(tag: str) -> list[tuple[int, float]]:
        return [(event.step, event.value) for event in events.Scalars(tag)]

    (layer,) = report["layers"]
    assert values("bytes") == [(0, report["bytes"]["file"])]
    assert values("top1_difference") == [
        (0, pytest.approx(report["accuracy"]["difference"]["top1"], abs=1e-5))
    ]
    assert values("layers/sqnr_db") == [(1, pytest.approx(layer["sqnr_db"]))]


def test_mlflow_reads_a_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    report = record("to_mlflow.py")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("vqzoo")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "mine"
    assert run.data.params["command"] == report["command"]
    assert run.data.metrics["bytes"] == report["bytes"]["file"]
    assert run.data.metrics["layer_bits_per_weight"] == report["layers"][0]["bits_per_weight"]
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["report.json"]

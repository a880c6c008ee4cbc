"""report.json: what a run writes, what is read back, and how malformed files are refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vqzoo.artifact.reader import open_artifact
from vqzoo.cli.main import app
from vqzoo.errors import ArtifactError, UsageError
from vqzoo.progress import SilentWatcher
from vqzoo.report.record import Record
from vqzoo.report.record_file import load_record, read_record
from vqzoo.runs.recipe import make_recipe
from vqzoo.runs.run import run

KEYS = [
    "model", "weights", "weights_sha256", "method", "options", "seed", "asked_sha256", "bytes",
    "ratio", "accuracy", "agreement", "layers", "skipped", "coverage", "stages", "finetuning",
    "calibration", "repair", "seconds", "command", "versions",
]  # fmt: skip
LAYER_KEYS = [
    "name", "kind", "shape", "method", "options", "transforms", "bits_per_weight", "ratio",
    "paper_bits", "sqnr_db", "row_sqnr_db", "bytes", "codes", "notes",
]  # fmt: skip


def report_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text())


def edit_report(folder: Path, **fields: object) -> None:
    (folder / "report.json").write_text(json.dumps(report_of(folder) | fields))


def test_a_report_has_its_keys_in_order_with_nulls(made: Path) -> None:
    report = report_of(made)
    assert list(report) == KEYS
    assert all(list(layer) == LAYER_KEYS for layer in report["layers"])
    assert list(report["seconds"]) == ["compress", "evaluate", "total"]
    for name in ("accuracy", "agreement", "finetuning", "calibration", "repair"):
        assert report[name] is None
    assert report["stages"] == []


def test_reading_and_writing_a_record_changes_nothing(made: Path) -> None:
    record = load_record(made)
    assert record is not None
    assert record.to_json() + "\n" == (made / "report.json").read_text()


def test_whole_numbers_and_floats_stay_apart(made: Path) -> None:
    """`paper_bits` and options are of either type: 8 is not written as 8.0, nor 8.0 as 8."""
    report = report_of(made)
    report["layers"][0] |= {"paper_bits": 8, "options": {"a": 1, "b": 1.0, "c": True, "d": None}}
    report["layers"][1] |= {"paper_bits": 8.0}
    assert json.dumps(Record.model_validate(report).to_dict()) == json.dumps(report)


def test_unknown_keys_are_ignored(artifact: Path) -> None:
    expected = load_record(artifact)
    report = report_of(artifact)
    report["layers"][0]["energy_joules"] = 3
    edit_report(artifact, layers=report["layers"], hostname="here")
    assert load_record(artifact) == expected


def test_reports_from_before_calibration_and_stages_still_load(artifact: Path) -> None:
    report = report_of(artifact)
    for name in ("stages", "finetuning", "calibration", "repair"):
        del report[name]
    for layer in report["layers"]:
        del layer["transforms"]
    (artifact / "report.json").write_text(json.dumps(report))
    record = read_record(open_artifact(artifact))
    assert record is not None
    assert record.finetuning is None
    assert record.stages == ()
    assert record.layers[0].method_text == "pq"
    assert record.to_dict() == report


def test_a_folder_without_a_report_has_no_record(artifact: Path) -> None:
    (artifact / "report.json").unlink()
    assert load_record(artifact) is None


def test_the_report_of_another_artifact_is_no_record(artifact: Path) -> None:
    report = report_of(artifact)
    edit_report(artifact, bytes={**report["bytes"], "file": report["bytes"]["file"] + 1})
    assert load_record(artifact) is not None
    assert read_record(open_artifact(artifact)) is None
    edit_report(artifact, bytes=report["bytes"], layers=report["layers"][1:])
    assert read_record(open_artifact(artifact)) is None


MALFORMED = [
    ("{", "report.json is not valid JSON"),
    ("[]", "report.json is malformed: input should be"),
    ("{}", "malformed at 'model': field required"),
    ('{"model": 1, "model": 2}', "duplicate key"),
]


@pytest.mark.parametrize(("text", "message"), MALFORMED)
def test_a_malformed_report_is_refused(artifact: Path, text: str, message: str) -> None:
    (artifact / "report.json").write_text(text)
    with pytest.raises(ArtifactError, match=re.escape(message)) as refused:
        read_record(open_artifact(artifact))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"bytes": {"dense": -1, "file": 1}}, "bytes.dense"),
        ({"bytes": {"dense": 1.5, "file": 1}}, "bytes.dense"),
        ({"seconds": None}, "seconds"),
        ({"layers": [{"name": "fc"}]}, "layers.0.kind"),
        ({"accuracy": {"data": "fmnist"}}, "accuracy.images"),
        ({"skipped": {"fc": 3}}, "skipped.fc"),
    ],
)
def test_the_message_names_the_field(artifact: Path, fields: dict[str, Any], place: str) -> None:
    edit_report(artifact, **fields)
    with pytest.raises(ArtifactError, match=f"malformed at '{re.escape(place)}'"):
        load_record(artifact)


def test_commands_report_a_malformed_file_in_one_line(artifact: Path) -> None:
    (artifact / "report.json").write_text("{}")
    arguments = ["finetune", str(artifact), "--data", "imagefolder:nowhere"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "malformed at 'model'" in line


def test_a_run_with_a_malformed_report_is_replaced_only_by_force(tmp_path: Path) -> None:
    recipe = make_recipe({"model": "test_resnet", "weights": "random", "method": "rtn"})
    folder = run(recipe, SilentWatcher(), out=tmp_path / "a").folder
    (folder / "report.json").write_text("{}")
    with pytest.raises(UsageError, match="--force"):
        run(recipe, SilentWatcher(), out=folder, reuse=True)
    record = run(recipe, SilentWatcher(), out=folder, reuse=True, force=True).record
    assert record == load_record(folder)


OBSERVER = """
import json
from pathlib import Path
from vqzoo.plugin import hookimpl
vqzoo_contract = 1
log = Path(__file__).with_suffix(".jsonl")
@hookimpl
def vqzoo_layer_compressed(layer):
    log.open("a").write(json.dumps(layer) + "\\n")
@hookimpl
def vqzoo_run_finished(record):
    log.open("a").write(json.dumps(record) + "\\n")
"""


def test_observers_receive_what_the_report_holds_as_plain_dicts(tmp_path: Path) -> None:
    (tmp_path / "observer.py").write_text(OBSERVER)
    fields = {"model": "test_resnet", "weights": "random", "method": "rtn"}
    recipe = make_recipe({**fields, "plugins": (tmp_path / "observer.py",)})
    finished = run(recipe, SilentWatcher(), out=tmp_path / "a")
    lines = (tmp_path / "observer.jsonl").read_text().splitlines()
    *layers, record = map(json.loads, lines)
    assert record == report_of(finished.folder)
    assert layers == record["layers"]

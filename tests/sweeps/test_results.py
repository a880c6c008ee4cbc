"""The table of results: what `vqzoo results` filters, exports, and calls optimal."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vqzoo.cli.main import app
from vqzoo.errors import VqzooError
from vqzoo.sweeps.results import COLUMNS, RESULTS_FILE, Row, open_results

DONE = Row(
    cell="0",
    state="done",
    reason=None,
    folder="cells/0",
    log="logs/0.log",
    model="resnet18",
    method="pq",
    options="k=16",
    requested_ratio=16.0,
    requested_size=None,
    layers="dense",
    seed=0,
    data="val",
    images=100,
    file_bytes=1000,
    dense_bytes=16000,
    ratio_layers=16.0,
    ratio_file=16.0,
    top1=70.0,
    dense_top1=71.0,
    change=-1.0,
    ci95=0.5,
    seconds=3.0,
    command="vqzoo run resnet18",
)
# Name -> bytes and top-1; b is as large as a and worse, d larger and worse, e as good as c.
POINTS = {"a": (100, 60.0), "b": (100, 59.0), "c": (300, 65.0), "d": (400, 64.0), "e": (500, 65.0)}
ROWS = [
    *(replace(DONE, cell=n, file_bytes=size, top1=top1) for n, (size, top1) in POINTS.items()),
    replace(DONE, cell="v", model="vit_tiny", method="km", file_bytes=200, top1=None,
            agreement=90.0, seed=3),
    replace(DONE, cell="f", state="failed", reason="out of\nmemory", method="km", file_bytes=None,
            top1=None, seconds=None),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with open_results(tmp_path, create=True) as results:
        for row in ROWS:
            results.write(row)
    return tmp_path


def shown(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(app, ["results", str(folder), "--json", *arguments])
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def cells(folder: Path, *arguments: str) -> str:
    return "".join(sorted(row["cell"] for row in shown(folder, *arguments)))


def test_rows_come_back_as_they_were_written(folder: Path) -> None:
    with open_results(folder) as results:
        assert sorted(results.rows(), key=lambda row: row.cell) == sorted(
            ROWS, key=lambda row: row.cell
        )
        results.write(replace(ROWS[-1], state="done", reason=None))
    with open_results(folder) as results:
        assert results.states()["f"] == "done"
        assert len(results.states()) == len(ROWS)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["method=pq"], "abcde"),
        (["method!=pq"], "fv"),
        (["top1>=64", "file_bytes<400"], "c"),
        (["top1 > 60.0"], "cde"),
        (["model~vit*"], "v"),
        (["state=failed"], "f"),
        (["seed=3"], "v"),
        (["method=pq'; DROP TABLE cells; --"], ""),
    ],
)
def test_conditions_choose_rows(folder: Path, conditions: list[str], expected: str) -> None:
    arguments = [word for text in conditions for word in ("--where", text)]
    assert cells(folder, *arguments) == expected
    assert cells(folder, "--model", "resnet*") == "abcdef"


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("method", "write COLUMN=VALUE"),
        ("methd=pq", "no column called 'methd'; did you mean method?"),
        ("top1>high", "top1 is a number"),
    ],
)
def test_conditions_that_make_no_sense(folder: Path, condition: str, says: str) -> None:
    done = CliRunner().invoke(app, ["results", str(folder), "--where", condition])
    assert done.exit_code == 2
    assert says in done.stderr


def test_the_pareto_front_of_each_model(folder: Path) -> None:
    assert cells(folder, "--pareto") == "acv"
    front = shown(folder, "--pareto", "--model", "resnet18")
    best = max(top1 for _, top1 in POINTS.values())
    assert [row["file_bytes"] for row in front] == [100, 300]
    assert front[-1]["top1"] == best


def test_csv_has_every_column(folder: Path) -> None:
    done = CliRunner().invoke(app, ["results", str(folder), "--csv"])
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert tuple(rows[0]) == COLUMNS
    assert {row["cell"]: row["file_bytes"] for row in rows}["c"] == "300"
    both = CliRunner().invoke(app, ["results", str(folder), "--csv", "--json"])
    assert both.exit_code == 2


def test_the_table_names_failures(folder: Path) -> None:
    done = CliRunner().invoke(app, ["results", str(folder)])
    assert done.exit_code == 0
    assert "out of" in done.stdout
    assert "logs/0.log" in done.stdout
    assert "90.00% as dense" in done.stdout
    assert f"{len(ROWS)} cells" in done.stdout


def test_folders_without_results_and_files_that_are_none(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["results", str(tmp_path)])
    assert done.exit_code == 1
    assert f"{tmp_path} has no {RESULTS_FILE}" in done.stderr
    (tmp_path / RESULTS_FILE).write_bytes(b"no database" * 100)
    with pytest.raises(VqzooError, match="cannot be used"), open_results(tmp_path):
        pass
    done = CliRunner().invoke(app, ["results", str(tmp_path)])
    assert done.exit_code == 1

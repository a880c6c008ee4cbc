"""`vqzoo report`: one complete file, which holds what the records say and nothing that runs."""

import http.client
import json
import re
import shutil
import threading
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from records import HOSTILE, write_report, write_reports

from vqzoo.artifact.files import sha256_file
from vqzoo.errors import ArtifactError, UsageError
from vqzoo.page import library
from vqzoo.page.serve import page_server
from vqzoo.page.write import write_page


@pytest.fixture
def record(made: Path) -> dict[str, Any]:
    return json.loads((made / "report.json").read_text())


class Parsed(HTMLParser):
    """The elements of a page, their attributes, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "script" and data.strip():
            self.scripts.append(data)


def data_of(text: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert match is not None
    return json.loads(match[1])


def test_the_page_is_complete_and_holds_the_records(tmp_path: Path, record: dict[str, Any]) -> None:
    write_reports(tmp_path / "runs", record)
    page = write_page([tmp_path / "runs"], tmp_path / "out/report.html")
    assert (page.runs, page.problems) == (3, ())
    text = page.path.read_text()
    for tag, attributes in Parsed(text).elements:
        for name in ("src", "href", "action", "data"):
            assert not (attributes.get(name) or "").startswith(("http:", "https:", "//")), tag
    assert "default-src 'none'" in text
    assert 300_000 < len(text) < 1_500_000
    runs = {run["name"]: run for run in data_of(text)["runs"]}
    assert set(runs) == {"first", "deep/second", "third"}
    first = runs["first"]
    assert (first["bytes"], first["lost"], first["kl"]) == (record["bytes"]["file"], 0.5, 0.02)
    assert first["command"] == record["command"]
    names = data_of(text)["layer_columns"]
    layer = dict(zip(names, first["layers"][0], strict=True))
    assert layer["name"] == record["layers"][0]["name"]
    assert layer["bytes"] == record["layers"][0]["bytes"]
    assert layer["sqnr"] == record["layers"][0]["sqnr_db"]


def test_the_same_records_give_the_same_bytes(tmp_path: Path, record: dict[str, Any]) -> None:
    write_reports(tmp_path / "runs", record)
    write_page([tmp_path / "runs"], tmp_path / "a.html")
    write_page([tmp_path / "runs"], tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_text_of_strangers_stays_text(tmp_path: Path, record: dict[str, Any]) -> None:
    """Hostile names are in the data, and change no element of the page."""
    write_reports(tmp_path / "runs", record)
    write_report(tmp_path / "tame/first", record)
    hostile = write_page([tmp_path / "runs"], tmp_path / "a.html").path.read_text()
    tame = write_page([tmp_path / "tame"], tmp_path / "b.html").path.read_text()
    strange, plain = Parsed(hostile), Parsed(tame)
    assert strange.elements == plain.elements
    assert [len(script) for script in strange.scripts[1:]] == [
        len(script) for script in plain.scripts[1:]
    ]
    (third,) = [run for run in data_of(hostile)["runs"] if run["name"] == "third"]
    assert third["command"] == third["network"] == third["layers"][0][0] == HOSTILE
    write_report(tmp_path / "only", record, model=HOSTILE)
    alone = write_page([tmp_path / "only"], tmp_path / "c.html").path.read_text()
    assert Parsed(alone).elements == plain.elements  # its name is the title


def test_damaged_artifacts_are_named_and_left_out(
    tmp_path: Path, record: dict[str, Any], artifact: Path
) -> None:
    runs = tmp_path / "runs"
    write_report(runs / "good", record)
    write_report(runs / "later.partial", record)
    for name, text in {"cut": '{"model": "x"', "less": '{"model": "x"}'}.items():
        (runs / name).mkdir()
        (runs / name / "report.json").write_text(text)
    (artifact / "report.json").unlink()
    artifact.rename(runs / "saved")
    page = write_page([runs], tmp_path / "report.html")
    assert page.runs == 1
    reasons = {problem.name: problem.reason for problem in page.problems}
    assert set(reasons) == {"cut", "less", "saved"}
    assert "report.json is malformed at 'weights'" in reasons["less"]
    assert "saved has no report.json" in reasons["saved"]
    assert data_of(page.path.read_text())["problems"] == [[p.name, p.reason] for p in page.problems]
    with pytest.raises(ArtifactError, match="malformed at 'weights'"):
        write_page([runs / "less"], tmp_path / "report.html")


def test_figures_of_retrieval_are_those_beside_the_artifacts(
    tmp_path: Path, made: Path, record: dict[str, Any]
) -> None:
    runs = tmp_path / "runs"
    for name in ("pq-8x", "pq-16x"):
        shutil.copytree(made, runs / name)
    point = {
        "method": "pq", "ratio_layers": 8.0, "ratio_file": 6.0, "map": 90.5, "change": -0.25,
        "ci95": 0.125, "asymmetric_map": 90.0, "asymmetric_change": -0.75, "asymmetric_ci95": 0.25,
        "folder": "pq-8x", "sha256": sha256_file(made / "vqzoo.safetensors"),
    }  # fmt: skip
    other = {**point, "folder": "pq-16x", "sha256": "0" * 64}  # of a file that was replaced
    comparison = {"data": "fmnist", "queries": 2500, "dense_map": 90.75, "points": [point, other]}
    (runs / "retrieval.json").write_text(json.dumps(comparison))
    page = write_page([runs], tmp_path / "report.html")
    first, second = data_of(page.path.read_text())["runs"][::-1]
    assert (first["name"], second["name"]) == ("pq-8x", "pq-16x")
    assert (first["map"], first["dense_map"], first["map_lost"]) == (90.5, 90.75, 0.25)
    assert (first["across_map"], first["across_lost"], first["across_ci95"]) == (90.0, 0.75, 0.25)
    assert first["map_on"] == "2,500 queries of fmnist"
    assert {key: None for key in first if "map" in key} == {
        k: second[k] for k in first if "map" in k
    }
    (runs / "retrieval.json").write_text(
        json.dumps({**comparison, "points": [{"folder": HOSTILE}]})
    )
    page = write_page([runs], tmp_path / "report.html")
    assert page.runs == 2
    (problem,) = page.problems
    assert problem.name == "runs/retrieval.json"
    assert "malformed at 'points.0" in problem.reason


def test_a_record_of_another_weights_file_is_left_out(tmp_path: Path, artifact: Path) -> None:
    path = artifact / "report.json"
    record = json.loads(path.read_text())
    record["bytes"]["file"] += 1
    path.write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match="describes a weights file of"):
        write_page([artifact], tmp_path / "report.html")


def test_only_pages_are_replaced(tmp_path: Path, record: dict[str, Any]) -> None:
    write_report(tmp_path / "run", record)
    target = tmp_path / "report.html"
    target.write_text("<p>mine</p>")
    with pytest.raises(UsageError, match="no page of vqzoo's"):
        write_page([tmp_path / "run"], target)
    assert target.read_text() == "<p>mine</p>"
    target.unlink()
    write_page([tmp_path / "run"], target)
    write_page([tmp_path / "run"], target)
    with pytest.raises(UsageError, match="is a folder"):
        write_page([tmp_path / "run"], tmp_path)


def test_the_command_says_what_is_wrong(vqzoo: Any, tmp_path: Path, record: dict[str, Any]) -> None:
    write_report(tmp_path / "run", record)
    (tmp_path / "empty").mkdir()
    for arguments, message in {
        ("nothing",): "nothing is not a folder",
        ("empty",): "empty has no artifact",
        ("run", "--port", "80"): "--port goes with --serve",
        ("run", "--data", "fmnist"): "go with --examples",
    }.items():
        result = vqzoo("report", *arguments)
        assert result.exit_code == 2
        assert message in result.stderr
    result = vqzoo("report", "run")
    assert (result.exit_code, result.stdout) == (0, "report.html: 1 artifact\n")


def test_commands_write_the_page_at_their_end_or_say_what_is_missing(
    vqzoo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = ["compare", "test_resnet", "--weights", "random", "--methods", "km", "--ratios", "8"]
    result = vqzoo(*compare, "--out", "c")
    assert result.exit_code == 0
    assert "page: c/report.html" in result.stdout
    text = (tmp_path / "c/report.html").read_text()
    assert [run["name"] for run in data_of(text)["runs"]] == ["km-8x"]
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/small.yaml").write_text(
        "model: test_resnet\nweights: random\nmethod: km\noptions: {k: 16}\n"
    )
    monkeypatch.setattr(library, "has_library", lambda: False)
    result = vqzoo("zoo", "build", "--recipes", "recipes", "--out", "zoo")
    assert result.exit_code == 0
    assert "no page was written: the page needs the package vl-convert-python: pip install" in (
        result.stderr
    )
    assert not (tmp_path / "zoo/report.html").exists()
    monkeypatch.undo()
    result = vqzoo("zoo", "build", "--recipes", "recipes", "--out", "zoo")
    assert "page: zoo/report.html" in result.stdout


def test_the_server_answers_this_machine_alone() -> None:
    pages = iter(["one", "two"])
    with page_server(lambda: next(pages)) as server:
        assert server.server_address[0] == "127.0.0.1"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def get(path: str, host: str) -> tuple[int, bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
            connection.request("GET", path, headers={"Host": host})
            answer = connection.getresponse()
            return answer.status, answer.read()

        try:
            here = f"localhost:{server.server_port}"
            assert get("/", here) == (200, b"one")
            assert get("/", here) == (200, b"two")
            assert get("/etc/passwd", here)[0] == 404
            assert get("/", "evil.example")[0] == 403
            with pytest.raises(UsageError, match="leave it out"):
                page_server(lambda: "", server.server_port)
        finally:
            server.shutdown()
            thread.join()

"""`vqzoo run --packing`: the same network in fewer bytes, compared with the entropy."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vqzoo.cli.main import app


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_packings_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    records: dict[str, dict[str, Any]] = {}
    for packing in ("bits", "huffman", "ans"):
        arguments = ["alexnet_mini.fmnist", "-m", "km", "-o", "k=32", "--images", "200"]
        printed = invoke("run", *arguments, "--packing", packing, "--out", packing)
        assert "; entropy " in printed
        records[packing] = json.loads(Path(packing, "report.json").read_text())
    for record in records.values():
        assert record["accuracy"] == records["bits"]["accuracy"]
        for row in record["layers"]:
            codes = row["codes"]
            assert codes["fixed_bits"] == 5 * codes["count"]
            assert codes["entropy_bits"] < codes["stored_bits"] <= codes["fixed_bits"] + 7
    large = {name: record["layers"][0]["codes"] for name, record in records.items()}
    assert large["ans"]["stored_bits"] < 1.005 * large["ans"]["entropy_bits"]
    assert large["ans"]["stored_bits"] < large["huffman"]["stored_bits"]
    assert records["ans"]["bytes"]["file"] < records["huffman"]["bytes"]["file"]
    assert "--packing ans" in records["ans"]["command"]
    shown = invoke("inspect", "ans")
    assert "packing" in shown
    assert " ans " in shown
    assert "--packing bits" in records["bits"]["command"]

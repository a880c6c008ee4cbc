"""`vqzoo compare`: plugin files, existing folders, methods that take no ratio."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vqzoo.cli.main import app

PLUGIN = """
from pydantic import Field
from vqzoo.plugin import Code, Floats, Indices, Options, Quantizer, hookimpl


class Signs(Quantizer):
    name = "signs"
    summary = "signs"

    def quantize(self, weight, options, context):
        parts = {"codes": Indices((weight > 0).int(), 2), "s": Floats.of(weight.abs().mean()[None])}
        return Code(tuple(weight.shape), parts)

    def reconstruct(self, code, params):
        return (code.indices("codes").float() * 2 - 1) * params["s"]


class OneRatio(Signs):
    name = "one-ratio"

    def candidates(self, m, n):
        return [Options()]

    def stored_bits(self, m, n, options):
        return 8 * -(-m * n // 8) + 16

    def expected_error(self, m, n, options):
        return 0.4


@hookimpl
def vqzoo_quantizers():
    return [Signs(), OneRatio()]
"""
COMPARE = ["compare", "test_resnet", "--weights", "random", "--ratios", "8,16", "--out", "c"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("signs.py").write_text(PLUGIN)
    return tmp_path


def compared(*arguments: str) -> tuple[dict[str, Any], str]:
    result = CliRunner().invoke(app, [*COMPARE, *arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), result.stderr


def test_methods_of_a_plugin_file_compete_and_those_without_ratios_are_left_out() -> None:
    arguments = ["--methods", "signs,one-ratio", "--plugin", "signs.py"]
    comparison, stderr = compared(*arguments)
    assert [point["method"] for point in comparison["points"]] == ["one-ratio"]
    assert "signs at 8x is left out: no layer could be compressed" in stderr
    assert Path("c/compare.png").is_file()


def test_all_methods_include_those_of_a_plugin_file() -> None:
    small = ["--layers", "layer4.0.downsample.1"]
    comparison, _ = compared("--plugin", "signs.py", "--ratios", "8", *small)
    assert {"one-ratio", "km", "pq"} <= {point["method"] for point in comparison["points"]}


def test_nothing_to_compare_fails() -> None:
    result = CliRunner().invoke(app, [*COMPARE, "--methods", "signs", "--plugin", "signs.py"])
    assert result.exit_code == 1
    assert "no method compressed any layer" in result.stderr
    assert not Path("c/compare.json").exists()


def test_an_artifact_of_another_request_is_replaced_only_with_force() -> None:
    arguments = ["--methods", "km", "--ratios", "8"]
    compared(*arguments)
    weights = Path("c/km-8x/vqzoo.safetensors")
    before = weights.stat().st_mtime_ns
    compared(*arguments, "--force")
    assert weights.stat().st_mtime_ns == before  # the same request: the artifact is kept
    result = CliRunner().invoke(app, [*COMPARE, *arguments, "--seed", "1"])
    assert result.exit_code == 2
    assert "--force replaces it" in result.stderr
    compared(*arguments, "--seed", "1", "--force")
    assert weights.stat().st_mtime_ns != before

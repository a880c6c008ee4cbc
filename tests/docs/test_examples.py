"""The plugins of the docs, docs/examples/*.py, work unchanged."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from typer.testing import CliRunner

import vqzoo
from vqzoo.cli.main import app
from vqzoo.plugin import hookspecs
from vqzoo.plugin.files import plugin_files
from vqzoo.plugin.manager import installed_plugins
from vqzoo.testing import check_engine, check_packing, check_selector

DOCS = Path(vqzoo.__file__).parents[1] / "docs"
EXAMPLES = DOCS / "examples"
RUN = ["run", "test_resnet", "--weights", "random", "--out", "a", "--json"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def record(plugin: str, *arguments: str) -> dict:
    result = CliRunner().invoke(app, [*arguments, "--plugin", str(EXAMPLES / plugin)])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_selector() -> None:
    with plugin_files([EXAMPLES / "widest.py"]):
        check_selector(installed_plugins().selectors.get("widest").item, "widest:1", "widest:3")
    report = record("widest.py", *RUN, "-m", "km", "-o", "k=4", "--layers", "widest:2")
    assert len(report["layers"]) == 2


def test_a_transform() -> None:
    report = record(
        "row_peaks.py", *RUN, "-m", "rtn", "-o", "format=int4", "--transform", "row-peaks:power=0.5"
    )
    (layer,) = report["layers"]
    assert layer["method"] == "rtn"
    assert layer["transforms"] == [{"name": "row-peaks", "options": {"power": 0.5}}]
    loaded = vqzoo.load("a", plugins=[EXAMPLES / "row_peaks.py"])
    assert torch.isfinite(loaded.get_parameter("fc.weight")).all()


def test_a_packing() -> None:
    with plugin_files([EXAMPLES / "deflate.py"]):
        check_packing(installed_plugins().packings.get("deflate").item)
    record("deflate.py", *RUN, "-m", "km", "-o", "k=20", "--packing", "deflate")
    with pytest.raises(vqzoo.errors.ArtifactError, match="packing 'deflate', which is not"):
        vqzoo.load("a")
    vqzoo.load("a", plugins=[EXAMPLES / "deflate.py"])


def test_a_model() -> None:
    run = ["run", "example_perceptron", "--weights", "random", "-m", "km", "-o", "k=4"]
    report = record("perceptron.py", *run, "--out", "a", "--json")
    assert [layer["name"] for layer in report["layers"]] == ["hidden", "head"]
    loaded = vqzoo.load("a", plugins=[EXAMPLES / "perceptron.py"])
    assert loaded(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_an_importer() -> None:
    random = np.random.default_rng(0)
    arrays = {k: v.numpy() for k, v in timm.create_model("test_resnet").state_dict().items()}
    del arrays["fc.weight"]
    table = arrays["fc.table"] = random.normal(size=16).astype(np.float32)
    codes = arrays["fc.codes"] = random.integers(16, size=(1000, 96), dtype=np.uint8)
    np.savez("a.npz", **arrays)
    words = ["import", "a.npz", "--from", "npz-tables", "--model", "test_resnet", "--out", "a"]
    result = CliRunner().invoke(app, [*words, "--plugin", str(EXAMPLES / "npz_tables.py")])
    assert result.exit_code == 0, result.output
    weight = vqzoo.load("a").get_parameter("fc.weight")
    assert np.array_equal(weight.numpy(), table[codes])


def test_an_engine() -> None:
    with plugin_files([EXAMPLES / "nice.py"]):
        engine = installed_plugins().engines.get("nice").item
    with pytest.raises(vqzoo.errors.UsageError, match="write nice:N, as in nice:4"):
        engine.check("many")
    check_engine(engine, "2")


def test_an_observer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNS_LOG", "log.jsonl")
    record("json_lines.py", *RUN, "-m", "km", "-o", "k=4")
    lines = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    assert lines[0]["name"] == "fc"
    assert lines[0]["done"] == lines[0]["total"] == 1
    assert lines[1]["ratio"]["layers"] > 1


def test_the_plot_of_diba(capsys: pytest.CaptureFixture[str]) -> None:
    script = runpy.run_path(str(EXAMPLES / "diba_snr.py"))
    script["main"](["--layers", "classifier.6", "--methods", "diba,svd", "--ratios", "8"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split(" | ") == ["| matrix", "ratio", "diba", "svd |"]
    assert lines[2].startswith("| `classifier.6`, 10 × 2048 | 8x |")
    assert Path("diba_snr.png").stat().st_size > 1000


HOOKS = [name for name in vars(hookspecs) if name.startswith("vqzoo_")]


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented_and_tested(hook: str) -> None:
    """A hook has a docstring, a heading of its own in the docs, and a tested example."""
    assert (getattr(hookspecs, hook).__doc__ or "").strip()
    page = (DOCS / "write-a-plugin.md").read_text()
    assert f"`{hook}`" in page
    plugins = [*EXAMPLES.glob("*.py"), *(DOCS / "example_plugin" / "src").rglob("*.py")]
    implementing = [path for path in plugins if f"def {hook}(" in path.read_text()]
    assert implementing
    assert any(path.name in page or path.parent.name in page for path in implementing)
    tests = Path(__file__).read_text()
    assert any(path.name in tests or "example_plugin" in str(path) for path in implementing)

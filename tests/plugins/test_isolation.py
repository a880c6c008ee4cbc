"""A plugin that fails or returns nonsense is named in one line, and no artifact is written."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import vqzoo
from vqzoo.cli.main import app

PLUGIN = Path(__file__).with_name("wild.py").read_text(encoding="utf-8")
LAYER = "wild (plugin file:wild.py) on layer fc"
BROKEN = {
    "raises": f"{LAYER} failed: ZeroDivisionError: division by zero",
    "exits": f"{LAYER} failed: SystemExit: 0",
    "nothing": f"{LAYER} returned NoneType, not a Code",
    "shape": f"{LAYER} returned a Code of shape",
    "nan": f"{LAYER}, part 'scale' holds NaN or infinite values",
    "range": f"{LAYER}, part 'codes' has codes 1..2 outside 0..1",
    "negative": f"{LAYER}, part 'codes' has codes -1..0 outside 0..1",
    "float codes": f"{LAYER}, part 'codes' has dtype torch.float32: codes must be integers",
    "cardinality": f"{LAYER}, part 'codes' has 1048576 symbols",
    "double": f"{LAYER}, part 'scale' is stored as torch.float64",
    "bare": f"{LAYER}: part 'scale' is a Tensor: it must be Indices(tensor, cardinality)",
    "part name": f"{LAYER}: part names must be distinct and of a-z",
    "parts": f"{LAYER} failed: TypeError",
    "fact": f"{LAYER}: fact 'list' is a list, not a scalar",
    "long fact": f"{LAYER}: fact 'text' is too long",
    "child": f"{LAYER}: child 'inner' is not what context.quantize returned",
    "decode": f"{LAYER} failed: AttributeError: decode",
    "decoded shape": f"{LAYER} failed: ValueError: wild rebuilt",
    "decoded nan": f"{LAYER} decoded to NaN or infinite values",
    "fit": f"{LAYER} failed: KeyError: 'fit'",
    "fitted": f"{LAYER} returned options of type dict",
    "paper": f"{LAYER}: paper_bits returned -1, not a size",
    "paper text": f"{LAYER}: paper_bits returned 'many', not a size",
}
MODEL = ["run", "test_resnet", "--weights", "random", "-m", "wild", "--plugin", "wild.py"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("wild.py").write_text(PLUGIN)
    return tmp_path


def fails(*arguments: str) -> str:
    result = CliRunner().invoke(app, [*MODEL, "--out", "a", *arguments])
    assert result.exit_code == 1, result.output
    left = {path.name for path in Path().iterdir()} - {"__pycache__"}  # Python's own
    assert left == {"wild.py"}
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, result.stderr
    return errors[0]


@pytest.mark.parametrize("how", BROKEN)
def test_a_quantizer_that_fails(how: str, folder: Path) -> None:
    assert f"error: {BROKEN[how]}" in fails("-o", f"how={how}")


def test_options_that_fail(folder: Path) -> None:
    assert "the Options of wild failed: RuntimeError: no such mood" in fails("-o", "how=options")


def test_a_transform_that_fails(folder: Path) -> None:
    message = "the matrix that turn (plugin file:wild.py) on layer fc returned holds NaN"
    assert message in fails("--transform", "turn")


@pytest.fixture
def pictures(folder: Path) -> str:
    Path("pictures").mkdir()
    for name in "abcd":
        Image.new("RGB", (8, 8)).save(f"pictures/{name}.png")
    return "imagefolder:pictures"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("learning", "AttributeError: reconstruct"),
        ("applied", "AttributeError: apply"),
        ("trainable", "SystemExit: 3"),
    ],
)
def test_a_quantizer_that_fails_in_fine_tuning(how: str, message: str, pictures: str) -> None:
    learn = ["--finetune", "1", "--train-data", pictures, "--layers", "fc,conv1.0"]
    result = CliRunner().invoke(app, [*MODEL, "--out", "a", "-o", f"how={how}", *learn])
    assert result.exit_code == 1, result.output
    assert result.stderr.splitlines()[-1] == f"error: wild (plugin file:wild.py) failed: {message}"
    assert not Path("a").exists()


def test_a_quantizer_that_fails_in_repair(pictures: str) -> None:
    result = CliRunner().invoke(
        app, [*MODEL, "--out", "a", "-o", "how=again", "--repair", pictures]
    )
    assert result.exit_code == 1, result.output
    message = "error: wild (plugin file:wild.py) failed: AttributeError: decode again"
    assert result.stderr.splitlines()[-1] == message
    assert not Path("a").exists()


def test_packings_that_fail(folder: Path) -> None:
    lossy = fails("--packing", "lossy")
    assert "packing lossy (plugin file:wild.py) of fc.weight::codes is not lossless" in lossy
    assert "worse (plugin file:wild.py) of fc.weight::codes failed: OSError: disk" in fails(
        "--packing", "worse"
    )


def test_selectors_that_fail(folder: Path) -> None:
    dreamt = fails("--layers", "dreamer")
    assert "dreamer (plugin file:wild.py) chose ['a.layer.of.my.dreams'], which the" in dreamt
    crashed = fails("--layers", "crash")
    assert "layer selector crash (plugin file:wild.py) failed: TypeError" in crashed


def test_keep_going_leaves_that_layer_dense_and_compresses_the_others(folder: Path) -> None:
    broken = [*MODEL, "--layers", "all", "-o", "only=fc", "-o", "how=raises", "--out", "a"]
    stopped = CliRunner().invoke(app, broken)
    assert stopped.exit_code == 1
    assert "--keep-going" in stopped.stderr
    assert not Path("a").exists()
    result = CliRunner().invoke(app, [*broken, "--keep-going", "--json"])
    assert result.exit_code == 0, result.output
    assert "fc: stays dense: wild (plugin file:wild.py) on layer fc failed" in result.stderr
    record = json.loads(result.stdout)
    assert record["skipped"]["fc"].startswith(f"failed: {LAYER} failed: ZeroDivisionError")
    assert len(record["layers"]) > 5
    again = vqzoo.load("a", plugins=["wild.py"])
    assert torch.isfinite(again.get_parameter("fc.weight")).all()


def test_keep_going_fails_if_no_layer_is_compressed(folder: Path) -> None:
    text = fails("-o", "how=raises", "--keep-going")
    assert "no layer could be compressed; fc: failed: wild" in text


def test_an_artifact_of_a_plugin_file_needs_the_file_to_load(folder: Path) -> None:
    result = CliRunner().invoke(app, [*MODEL, "--out", "a", "--json"])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["command"].endswith("--plugin wild.py")
    assert len(record["versions"]["file:wild.py"]) == 12
    with pytest.raises(vqzoo.errors.ArtifactError, match=r"plugin file 'wild.py': pass that file"):
        vqzoo.load("a")
    assert CliRunner().invoke(app, ["inspect", "a"]).exit_code == 0
    again = vqzoo.load("a", plugins=["wild.py"])
    assert again.get_parameter("fc.weight").unique().numel() == 2
    pushed = CliRunner().invoke(app, [*MODEL, "--out", "b", "--push", "someone/something"])
    assert pushed.exit_code == 2
    assert not Path("b").exists()
    with pytest.raises(vqzoo.errors.UsageError, match=r"needs the plugin file wild.py"):
        vqzoo.push("a", "someone/something")


def test_another_file_is_another_request(folder: Path) -> None:
    first = json.loads(CliRunner().invoke(app, [*MODEL, "--out", "a", "--json"]).stdout)
    Path("wild.py").write_text(PLUGIN + "\n# changed\n")
    second = json.loads(CliRunner().invoke(app, [*MODEL, "--out", "b", "--json"]).stdout)
    assert first["asked_sha256"] != second["asked_sha256"]
    assert first["versions"]["file:wild.py"] != second["versions"]["file:wild.py"]


def test_a_plugin_file_in_python(folder: Path) -> None:
    import timm

    model = timm.create_model("test_resnet")
    small = vqzoo.compress(model, "wild", plugins=["wild.py"], how="fine")
    small.save("a")
    loaded = vqzoo.load("a", plugins=["wild.py"])
    for name, weight in small.module.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name])


def test_methods_lists_what_a_file_provides(folder: Path) -> None:
    result = CliRunner().invoke(app, ["methods", "wild", "--plugin", "wild.py"])
    assert result.exit_code == 0
    assert "how it misbehaves" in result.stdout
    assert "file:wild.py" in result.stdout
    assert "wild" not in CliRunner().invoke(app, ["methods"]).stdout

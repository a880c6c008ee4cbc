"""A plugin that fails or returns nonsense is named, caught, and never written to an artifact."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import vqzoo
from vqzoo.cli.main import app

PLUGIN = """
import sys
from collections.abc import Mapping
import torch
from pydantic import Field, field_validator
from vqzoo.plugin import (
    Code, Floats, Indices, LayerSelector, MethodCode, Options, Packing, Quantizer, SkipLayer,
    Transform, hookimpl,
)

vqzoo_contract = 1

class WildOptions(Options):
    how: str = Field("fine", description="how it misbehaves")
    only: str = Field("", description="the layer that it misbehaves on; all where empty")

    @field_validator("how")
    @classmethod
    def _look(cls, value):
        if value == "options":
            raise RuntimeError("no such mood")
        return value

class Wild(Quantizer):
    name = "wild"
    summary = "misbehaves as asked"
    Options = WildOptions

    def quantize(self, weight, options, context):
        how = options.how if options.only in ("", context.layer) else "fine"
        codes = (weight > 0).long()
        shape = tuple(weight.shape)
        scale = Floats.of(weight.abs().mean().reshape(1))
        parts = {"codes": Indices(codes, 2), "scale": scale}
        if how == "raises":
            raise ZeroDivisionError("division\\nby zero")
        if how == "exits":
            sys.exit(0)
        if how == "nothing":
            return None
        if how == "shape":
            return Code((shape[1], shape[0] + 1), parts)
        if how == "nan":
            return Code(shape, {**parts, "scale": Floats(torch.tensor([torch.nan]).half())})
        if how == "range":
            return Code(shape, {**parts, "codes": Indices(codes + 1, 2)})
        if how == "negative":
            return Code(shape, {**parts, "codes": Indices(codes - 1, 2)})
        if how == "float codes":
            return Code(shape, {**parts, "codes": Indices(codes.float(), 2)})
        if how == "cardinality":
            return Code(shape, {**parts, "codes": Indices(codes, 1 << 20)})
        if how == "double":
            return Code(shape, {**parts, "scale": Floats(scale.stored.double())})
        if how == "bare":
            return Code(shape, {**parts, "scale": scale.values})
        if how == "part name":
            return Code(shape, {**parts, "../../etc": scale})
        if how == "parts":
            return Code(shape, [1, 2])
        if how == "fact":
            return Code(shape, parts, {"list": [1]})
        if how == "long fact":
            return Code(shape, parts, {"text": "x" * 5000})
        if how == "child":
            return Code(shape, parts, {}, {"inner": Code(shape, parts)})
        if how == "decode":
            return Code(shape, parts, {"how": "raise"})
        if how == "decoded shape":
            return Code(shape, parts, {"how": "transpose"})
        if how == "decoded nan":
            return Code(shape, parts, {"how": "nan"})
        if how in ("again", "learning", "applied", "trainable"):
            return Code(shape, parts, {"how": how})
        return Code(shape, parts)

    def fit(self, m, n, options, note):
        if options.how == "fit":
            raise KeyError("fit")
        return {"how": "fine"} if options.how == "fitted" else options

    def paper_bits(self, m, n, options):
        return {"paper": -1, "paper text": "many"}.get(options.how)

    def reconstruct(self, code, params):
        matrix = (code.indices("codes").float() * 2 - 1) * params["scale"]
        how = code.facts.get("how")
        if how == "raise":
            raise AttributeError("decode")
        if how == "transpose":
            return torch.cat([matrix, matrix])
        if how == "learning" and torch.is_grad_enabled():
            raise AttributeError("reconstruct")
        if how == "again":
            self.decoded += 1
            if self.decoded > 1:
                raise AttributeError("decode again")
        return matrix * torch.nan if how == "nan" else matrix

    decoded = 0

    def apply(self, code, params, x):
        if code.facts.get("how") == "applied":
            raise AttributeError("apply")
        return super().apply(code, params, x)

    def trainable(self, code):
        if code.facts.get("how") == "trainable":
            sys.exit(3)
        return super().trainable(code)

class Turn(Transform):
    name = "turn"
    summary = "returns nonsense"

    def forward(self, weight, options, context):
        return weight * torch.nan, Code(tuple(weight.shape), {})

    def reconstruct(self, code, params):
        return params["weight"]

class Lossy(Packing):
    name = "lossy"

    def pack(self, values, cardinality):
        return torch.zeros(values.numel(), dtype=torch.uint8)

    def unpack(self, stream, cardinality, count):
        return stream.long()

class Worse(Lossy):
    name = "worse"

    def pack(self, values, cardinality):
        raise OSError("disk on fire")

class Dreamer(LayerSelector):
    name = "dreamer"

    def select(self, layers, text):
        return {"a.layer.of.my.dreams": "it was beautiful"}

class Crash(Dreamer):
    name = "crash"

    def select(self, layers, text):
        return layers["fc"]

@hookimpl
def vqzoo_quantizers():
    return [Wild()]

@hookimpl
def vqzoo_transforms():
    return [Turn()]

@hookimpl
def vqzoo_packings():
    return [Lossy(), Worse()]

@hookimpl
def vqzoo_layer_selectors():
    return [Dreamer(), Crash()]
"""
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
    assert [path.name for path in Path().iterdir()] == ["wild.py"]
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, result.stderr
    return errors[0]


@pytest.mark.parametrize("how", BROKEN)
def test_a_quantizer_that_breaks(how: str, folder: Path) -> None:
    assert f"error: {BROKEN[how]}" in fails("-o", f"how={how}")


def test_options_that_break(folder: Path) -> None:
    assert "the Options of wild failed: RuntimeError: no such mood" in fails("-o", "how=options")


def test_a_transform_that_breaks(folder: Path) -> None:
    told = "the matrix that turn (plugin file:wild.py) on layer fc returned holds NaN"
    assert told in fails("--transform", "turn")


@pytest.fixture
def pictures(folder: Path) -> str:
    Path("pictures").mkdir()
    for name in "abcd":
        Image.new("RGB", (8, 8)).save(f"pictures/{name}.png")
    return "imagefolder:pictures"


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("learning", "AttributeError: reconstruct"),
        ("applied", "AttributeError: apply"),
        ("trainable", "SystemExit: 3"),
    ],
)
def test_a_quantizer_that_breaks_in_fine_tuning(how: str, told: str, pictures: str) -> None:
    learn = ["--finetune", "1", "--train-data", pictures, "--layers", "fc,conv1.0"]
    result = CliRunner().invoke(app, [*MODEL, "--out", "a", "-o", f"how={how}", *learn])
    assert result.exit_code == 1, result.output
    assert result.stderr.splitlines()[-1] == f"error: wild (plugin file:wild.py) failed: {told}"
    assert not Path("a").exists()


def test_a_quantizer_that_breaks_in_repair(pictures: str) -> None:
    result = CliRunner().invoke(
        app, [*MODEL, "--out", "a", "-o", "how=again", "--repair", pictures]
    )
    assert result.exit_code == 1, result.output
    told = "error: wild (plugin file:wild.py) failed: AttributeError: decode again"
    assert result.stderr.splitlines()[-1] == told
    assert not Path("a").exists()


def test_packings_that_break(folder: Path) -> None:
    lossy = fails("--packing", "lossy")
    assert "packing lossy (plugin file:wild.py) of fc.weight::codes does not give the" in lossy
    assert "worse (plugin file:wild.py) of fc.weight::codes failed: OSError: disk" in fails(
        "--packing", "worse"
    )


def test_selectors_that_break(folder: Path) -> None:
    dreamt = fails("--layers", "dreamer")
    assert "dreamer (plugin file:wild.py) chose ['a.layer.of.my.dreams'], not in" in dreamt
    crashed = fails("--layers", "crash")
    assert "layer selector crash (plugin file:wild.py) failed: TypeError" in crashed


def test_keep_going_leaves_that_layer_dense_and_does_the_others(folder: Path) -> None:
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


def test_keep_going_with_nothing_left_fails(folder: Path) -> None:
    text = fails("-o", "how=raises", "--keep-going")
    assert "no layer could be compressed; fc: failed: wild" in text


def test_what_a_file_made_needs_the_file_again(folder: Path) -> None:
    result = CliRunner().invoke(app, [*MODEL, "--out", "a", "--json"])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["command"].endswith("--plugin wild.py")
    assert len(record["versions"]["file:wild.py"]) == 12
    with pytest.raises(vqzoo.errors.ArtifactError, match=r"plugin file 'wild.py': give that file"):
        vqzoo.load("a")
    assert CliRunner().invoke(app, ["inspect", "a"]).exit_code == 0
    again = vqzoo.load("a", plugins=["wild.py"])
    assert again.get_parameter("fc.weight").unique().numel() == 2
    pushed = CliRunner().invoke(app, [*MODEL, "--out", "b", "--push", "someone/something"])
    assert pushed.exit_code == 2
    assert not Path("b").exists()
    with pytest.raises(vqzoo.errors.UsageError, match=r"made with the plugin file wild.py"):
        vqzoo.push("a", "someone/something")


def test_another_file_is_another_request(folder: Path) -> None:
    first = json.loads(CliRunner().invoke(app, [*MODEL, "--out", "a", "--json"]).stdout)
    Path("wild.py").write_text(PLUGIN + "\n# changed\n")
    second = json.loads(CliRunner().invoke(app, [*MODEL, "--out", "b", "--json"]).stdout)
    assert first["asked_sha256"] != second["asked_sha256"]
    assert first["versions"]["file:wild.py"] != second["versions"]["file:wild.py"]


def test_a_file_from_python(folder: Path) -> None:
    import timm

    model = timm.create_model("test_resnet")
    small = vqzoo.compress(model, "wild", plugins=["wild.py"], how="fine")
    small.save("a")
    loaded = vqzoo.load("a", plugins=["wild.py"])
    for name, weight in small.module.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name])


def test_methods_lists_what_a_file_brings(folder: Path) -> None:
    result = CliRunner().invoke(app, ["methods", "wild", "--plugin", "wild.py"])
    assert result.exit_code == 0
    assert "how it misbehaves" in result.stdout
    assert "file:wild.py" in result.stdout
    assert "wild" not in CliRunner().invoke(app, ["methods"]).stdout

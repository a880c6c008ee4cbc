"""Transforms on the command line, in recipes and in Python: options are checked and recorded."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from typer.testing import CliRunner

import vqzoo
from vqzoo.cli.main import app
from vqzoo.errors import UsageError
from vqzoo.runs.command_line import canonical_command
from vqzoo.runs.fields.rules import parse_rule
from vqzoo.runs.recipe import make_recipe

PLUGIN = """
from pydantic import Field
from vqzoo.plugin import Code, Floats, Options, Transform, hookimpl


class Options_(Options):
    factor: float = Field(2.0, gt=0, description="what everything is multiplied by")
    how: str = Field("", description="how it fails when it is undone")


class Times(Transform):
    name = "times"
    summary = "multiplies, and divides again"
    Options = Options_

    def forward(self, weight, options, context):
        facts = {"factor": options.factor, "how": options.how}
        return weight * options.factor, Code(tuple(weight.shape), {}, facts)

    def reconstruct(self, code, params):
        if code.facts["how"] == "raises":
            raise ZeroDivisionError("by zero")
        matrix = params["weight"] / code.facts["factor"]
        return matrix * float("nan") if code.facts["how"] == "nan" else matrix


@hookimpl
def vqzoo_transforms():
    return [Times()]
"""
RUN = ["run", "test_resnet", "--weights", "random", "-m", "km", "-o", "k=4", "--plugin", "times.py"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("times.py").write_text(PLUGIN)
    return tmp_path


def record(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def entry(folder: str, key: str = "fc.weight") -> dict[str, Any]:
    with safe_open(Path(folder, "vqzoo.safetensors"), framework="pt") as file:
        return json.loads(file.metadata()["vqzoo"])["layers"][key]


def test_options_reach_the_transform_and_are_recorded() -> None:
    report = record(*RUN, "--transform", "times:factor=8", "--transform", "times", "--out", "a")
    used = [
        {"name": "times", "options": {"factor": 8.0, "how": ""}},
        {"name": "times", "options": {"factor": 2.0, "how": ""}},
    ]
    (layer,) = report["layers"]
    assert layer["method"] == "km"
    assert layer["transforms"] == used
    assert entry("a")["transforms"] == used
    assert entry("a")["code"]["facts"]["factor"] == 8.0
    assert entry("a")["code"]["children"]["weight"]["facts"]["factor"] == 2.0


def test_the_command_of_the_record_asks_for_the_same_transforms() -> None:
    arguments = ["--transform", "times:factor=3e20", "--rule", "conv1.0=times:factor=4+times+rtn"]
    command = record(*RUN, *arguments, "--out", "a")["command"]
    assert "conv1.0=times:factor=4.0+times+rtn" in command
    again = record(*shlex.split(command)[1:], "--out", "b")
    assert again["command"] == command
    first, second = Path("a/vqzoo.safetensors"), Path("b/vqzoo.safetensors")
    assert first.read_bytes() == second.read_bytes()


def test_recipes_name_transforms_as_text_or_with_options() -> None:
    Path("r.yaml").write_text(
        "model: test_resnet\nweights: random\nmethod: km\noptions: {k: 4}\n"
        "transforms: ['times:factor=8', {name: times, options: {factor: 16}}]\n"
        "rules:\n- {layers: conv1.0, method: rtn, transforms: [times]}\n"
    )
    report = record("run", "--recipe", "r.yaml", "--plugin", "times.py")
    factors = {
        row["name"]: [step["options"]["factor"] for step in row["transforms"]]
        for row in report["layers"]
    }
    assert factors == {"conv1.0": [2.0], "fc": [8.0, 16.0]}


def test_equal_options_are_the_same_request_however_they_are_written() -> None:
    first = record(*RUN, "--transform", "times:factor=8", "--out", "a")
    second = record(*RUN, "--transform", "times:factor=8.0", "--out", "b")
    other = record(*RUN, "--transform", "times:factor=9", "--out", "c")
    assert first["asked_sha256"] == second["asked_sha256"] != other["asked_sha256"]


@pytest.mark.parametrize(
    ("transform", "says"),
    [
        ("times:faktor=3", "times has no option 'faktor'; it has: factor, how"),
        ("times:factor=-1", "times: option factor='-1'"),
        ("times:factor", "no transform called 'times:factor'"),
        ("timse", "did you mean times"),
    ],
)
@pytest.mark.parametrize("where", ["--transform", "--rule"])
def test_invalid_transforms_are_refused_in_one_line(where: str, transform: str, says: str) -> None:
    value = transform if where == "--transform" else f"fc={transform}+km"
    result = CliRunner().invoke(app, [*RUN, where, value])
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    left = {path.name for path in Path().iterdir()} - {"__pycache__"}  # Python's own
    assert left == {"times.py"}


def test_unknown_fields_of_a_transform_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"transforms.0.factor: unknown; there are: name, options"):
        make_recipe({"model": "m", "method": "km", "transforms": [{"name": "t", "factor": 1}]})


def test_the_text_of_a_rule_with_large_floats_is_read_back() -> None:
    rule = parse_rule("fc=times:factor=1e20+km")
    recipe = make_recipe({"model": "m", "rules": [rule]})
    typed = rule.transforms[0].model_copy(update={"options": {"factor": 1e20}})
    recipe = recipe.model_copy(
        update={"rules": (rule.model_copy(update={"transforms": (typed,)}),)}
    )
    text = shlex.split(canonical_command(recipe, "m"))[-1]
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    ("how", "says"), [("raises", "failed: ZeroDivisionError: by zero"), ("nan", "decoded to NaN")]
)
def test_a_transform_that_cannot_be_undone_is_named(how: str, says: str) -> None:
    result = CliRunner().invoke(app, [*RUN, "--transform", f"times:how={how}"])
    assert result.exit_code == 1
    assert f"times (plugin file:times.py) on layer fc {says}" in result.stderr
    assert "km (plugin" not in result.stderr


def test_from_python() -> None:
    model = timm.create_model("test_resnet")
    steps = ["times", ("times", {"factor": 4})]
    small = vqzoo.compress(model, "km", transforms=steps, plugins=["times.py"], k=4)
    (layer,) = small.layers
    assert layer.method == "km"
    assert [step.options["factor"] for step in layer.transforms] == [2.0, 4.0]
    small.save("a")
    assert json.loads(Path("a/config.json").read_text())["vqzoo"]["method"] == "km"
    loaded = vqzoo.load("a", plugins=["times.py"])
    assert torch.equal(loaded.get_parameter("fc.weight"), small.module.get_parameter("fc.weight"))
    with pytest.raises(UsageError, match="it has: factor, how"):
        vqzoo.compress(model, "km", transforms=[("times", {"x": 1})], plugins=["times.py"], k=4)

"""`vqzoo run` under one budget for the whole network: --size, --lambda, --max-kl, --max-drop."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from vqzoo.budget.file_size import parse_size
from vqzoo.progress import SilentWatcher
from vqzoo.runs.recipe import make_recipe
from vqzoo.runs.run import run

# The large layers have fixed sizes here, which keeps the search fast.
SMALL = ["run", "test_resnet", "--weights", "random", "--rule", "layer4*=binary", "--rule",
         "fc=binary"]  # fmt: skip
SMALLER = [*SMALL, "--rule", "layer3*=binary"]
FIELDS = {
    "model": "test_resnet",
    "weights": "random",
    "rules": [
        {"layers": "layer4*", "method": "binary"},
        {"layers": "fc", "method": "binary"},
        {"layers": "layer3*", "method": "binary"},
    ],
}
EMBEDDED = ["run", "alexnet_mini.fmnist", "--layers", "features.0,features.4", "--images", "150",
            "--calibration-images", "64"]  # fmt: skip


def record_of(vqzoo: Any, *arguments: str, **environment: str) -> dict[str, Any]:
    result = vqzoo(*arguments, "--force", "--json", **environment)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("size", ["100kB", "0.12MB", "200000"])
def test_the_whole_file_is_at_most_the_size_and_within_one_percent(
    vqzoo, tmp_path: Path, size: str
) -> None:
    ran = vqzoo(*SMALL, "--size", size, "--out", "a")
    assert ran.exit_code == 0, ran.stderr
    limit = {"100kB": 100_000, "0.12MB": 120_000, "200000": 200_000}[size]
    file = (tmp_path / "a/vqzoo.safetensors").stat().st_size
    assert 0.99 * limit <= file <= limit
    budget = json.loads((tmp_path / "a/report.json").read_text())["budget"]
    assert budget["size"] == limit
    assert file in [step["bytes"] for step in budget["steps"]]
    assert "searching λ: step 2, " in ran.stderr
    assert len(budget["steps"]) <= 8


def test_all_layers_have_one_price_but_those_that_rules_fix(vqzoo, tmp_path: Path) -> None:
    record = record_of(vqzoo, *SMALL, "--size", "110kB", "--out", "a")
    by_method: dict[str, set[Any]] = {}
    for layer in record["layers"]:
        by_method.setdefault(layer["method"], set()).add(layer["options"].get("price"))
    assert by_method == {"binary": {None}, "ecq": {record["budget"]["price"]}}
    assert record["skipped"] == {}
    assert record["method"] == "mixed"


def test_the_record_s_command_and_its_price_make_the_same_file(vqzoo, tmp_path: Path) -> None:
    record = record_of(vqzoo, *SMALLER, "--size", "100kB", "--seed", "3", "--out", "a")
    words = shlex.split(record["command"])[1:]
    assert words[:4] == ["run", "test_resnet", "--size", "100kB"]
    record_of(vqzoo, *words, "--out", "b")
    price = repr(record["budget"]["price"])
    given = record_of(vqzoo, *SMALLER, "--seed", "3", "--lambda", price, "--out", "c")
    files = [(tmp_path / name / "vqzoo.safetensors").read_bytes() for name in "abc"]
    assert files[0] == files[1] == files[2]
    assert given["budget"]["size"] is None
    assert len(given["budget"]["steps"]) == 1
    exact = record_of(vqzoo, *SMALLER, "--lambda", "1.23456789e-05", "--out", "d")
    assert exact["budget"]["price"] == 1.23456789e-05


class Interruption(SilentWatcher):
    """Interrupts a run at a layer of the search, or behind it."""

    def __init__(self, layers: int) -> None:
        self.left = layers

    def layer_started(self, name: str, index: int, total: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def test_an_interrupted_run_gives_the_same_bytes(tmp_path: Path) -> None:
    recipe = make_recipe({**FIELDS, "size": "100kB"})
    whole = run(recipe, SilentWatcher(), out=tmp_path / "whole")
    assert whole.record.budget is not None
    layers = len(whole.record.layers)
    searched = layers * len(whole.record.budget.steps)
    for place, count in enumerate((layers + 2, searched + 3)):
        out = tmp_path / str(place)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, Interruption(count), out=out)
        partial = tmp_path / f"{place}.partial"
        assert partial.exists() == (count > searched)  # the search itself leaves nothing
        # With one layer damaged the run compresses it again, at the price that it found.
        for file in sorted(partial.glob("layers/*.safetensors"))[:1]:
            file.write_bytes(b"damaged")
        again = run(recipe, SilentWatcher(), out=out)
        assert again.record.budget == whole.record.budget
        name = "vqzoo.safetensors"
        assert (out / name).read_bytes() == (whole.folder / name).read_bytes()


def test_a_size_that_cannot_be_reached_names_the_smallest(vqzoo, tmp_path: Path) -> None:
    refused = vqzoo(*SMALL, "--size", "9kB", "--out", "a")
    assert refused.exit_code == 2
    assert "--size 9kB: the smallest possible file has " in refused.stderr
    smallest = int(refused.stderr.split("file has ")[1].split(" bytes")[0].replace(",", ""))
    advice = refused.stderr.split("; ")[1].split(" can be reached")[0]
    assert list(tmp_path.glob("a*")) == []
    reached = record_of(vqzoo, *SMALL, "--size", advice, "--out", "a")
    assert reached["bytes"]["file"] <= parse_size(advice) < 1.02 * smallest


def test_a_size_beyond_use_says_so(vqzoo) -> None:
    ran = vqzoo(*SMALL, "--size", "3MB", "--out", "a", "--json")
    assert "below --size: more would hardly bring the answers nearer" in ran.stderr
    record = json.loads(ran.stdout)
    assert record["budget"]["remark"] in ran.stderr
    assert (
        min(layer["sqnr_db"] or 99 for layer in record["layers"] if layer["method"] == "ecq") > 55
    )


def test_the_smallest_file_that_keeps_a_divergence_on_held_out_images(vqzoo) -> None:
    limit = 0.05
    record = record_of(
        vqzoo, *EMBEDDED, "--max-kl", str(limit), "--held-out-images", "200", "--out", "a"
    )
    budget = record["budget"]
    assert budget["held_out"]["kl"] <= limit
    assert budget["held_out"]["images"] == 200
    assert budget["held_out"]["data"] == "fmnist, 200 held-out training images"
    assert record["calibration"] == {"data": "fmnist, 64 training images", "images": 64}
    assert record["agreement"]["images"] == record["accuracy"]["images"] == 150
    assert record["agreement"]["kl"] == pytest.approx(budget["held_out"]["kl"], rel=0.5)
    for step in budget["steps"]:  # nothing smaller that was tried keeps it
        assert step["bytes"] >= record["bytes"]["file"] or step["held_out"]["kl"] > limit
    assert set(budget["layers"]) == {layer["name"] for layer in record["layers"]}
    assert budget["predicted_loss"] == pytest.approx(sum(budget["layers"].values()))


def test_the_smallest_file_that_keeps_top_1_on_held_out_images(vqzoo, tmp_path: Path) -> None:
    ran = vqzoo(*EMBEDDED, "--max-drop", "2", "--held-out-images", "200", "--out", "a")
    assert ran.exit_code == 0, ran.stderr
    assert "points of top-1, on fmnist, 200 held-out training images" in ran.stdout
    record = json.loads((tmp_path / "a/report.json").read_text())
    for layer, loss in record["budget"]["layers"].items():
        (line,) = [line for line in ran.stdout.splitlines() if line.startswith(layer)]
        assert line.split()[-1] == f"{loss:.2g}"
    held_out = record["budget"]["held_out"]
    assert 0 <= held_out["expected_drop"] < held_out["drop_bound"] <= 2
    expected, most = held_out["expected_drop"], held_out["drop_bound"]
    assert f"{-expected:+.2f} points expected, {-most:+.2f} at worst" in ran.stdout
    assert abs(held_out["drop"] - held_out["expected_drop"]) < 1.6 * held_out["ci95"]
    for step in record["budget"]["steps"]:
        assert step["bytes"] >= record["bytes"]["file"] or step["held_out"]["drop_bound"] > 2
    assert record["agreement"]["images"] == 150


def test_embedded_networks_calibrate_on_their_images_unless_told_otherwise(vqzoo) -> None:
    calibrated = record_of(vqzoo, *EMBEDDED, "--lambda", "1e-8", "--out", "a")
    assert calibrated["calibration"]["data"] == "fmnist, 64 training images"
    assert "--calibrate fmnist" in calibrated["command"]
    plain = vqzoo(*EMBEDDED, "--lambda", "1e-8", "--calibrate", "none", "--out", "b", "--json")
    record = json.loads(plain.stdout)
    assert record.get("calibration") is None
    assert record["budget"]["predicted_loss"] is None
    assert "--calibrate none" in record["command"]
    assert "unlabelled images would weight them" in plain.stderr


def test_repair_takes_part_in_the_judgement(vqzoo) -> None:
    record = record_of(
        vqzoo, *EMBEDDED, "--max-kl", "0.1", "--held-out-images", "200", "--repair", "fmnist",
        "--out", "a",
    )  # fmt: skip
    assert record["repair"]["images"] == 64  # none of the images that judge
    assert record["agreement"]["kl"] == pytest.approx(record["budget"]["held_out"]["kl"], rel=0.5)


def test_fine_tuning_leaves_the_size_as_it_is(vqzoo) -> None:
    layers = ["--layers", "features.0,classifier.6", "--images", "100", "--calibrate", "none"]
    rules = ["--rule", "classifier.1=binary", "--rule", "classifier.4=binary"]
    record = record_of(
        vqzoo, "run", "alexnet_mini.fmnist", *layers, *rules, "--size", "2.58MB", "--finetune", "1",
        "--train-images", "80", "--out", "a",
    )  # fmt: skip
    assert record["bytes"]["file"] <= 2_580_000
    assert record["finetuning"]["history"][-1]["epoch"] == 1
    assert record["stages"][-1]["bytes"] == record["bytes"]["file"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("--size 1MB --ratio 8 -m ecq", "--size and --ratio both choose"),
        ("--size 1MB --lambda 1e-6", "give one of --size and --lambda"),
        ("--size 1MB -m km", "km knows no price of a bit"),
        ("--lambda 1e-6 -m pq", "method that does (ecq"),
        ("--size 1MB -m ecq -o price=1e-6", "chooses the option price of ecq"),
        ("--size 1MB --rule *=binary", "the size of no layer is left to choose (binary)"),
        ("--size 1MiB", "'1MiB' is not a size: write 2.3MB, 200kB or bytes"),
        ("--size -1", "is not a size"),
        ("--size 0", "is no size of a file"),
        ("--lambda 0", "price: input should be greater"),
        ("--max-kl nan", "max_kl: input should be"),
        ("--max-kl 0.1", "give --calibrate imagefolder:PATH"),
        ("--max-drop 1 --calibrate none", "give --calibrate imagefolder:PATH"),
        ("--max-kl 0.1 --finetune 2", "give --train-data imagefolder:PATH"),
        ("--max-kl 0.1 --finetune 2 --held-out-images 9", "leave held_out_images out"),
        ("--size 1MB --held-out-images 5", "held_out_images belongs to --max-kl and --max-drop"),
        ("", "or a size (--size 2.3MB)"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    vqzoo, tmp_path: Path, options: str, problem: str
) -> None:
    refused = vqzoo("run", "test_resnet", "--weights", "random", *shlex.split(options))
    assert refused.exit_code == 2
    assert problem in refused.stderr
    assert sum(line.startswith("error:") for line in refused.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


PLUGIN = """
import torch
from pydantic import Field
from vqzoo.plugin import Code, Floats, Indices, Options, Quantizer, hookimpl

vqzoo_contract = 1

class GridOptions(Options):
    cost: float = Field(1e-6, gt=0, description="the price of a bit")

class Grid(Quantizer):
    name = "a-grid"
    summary = "a grid whose step follows from the price"
    price_option = "cost"
    Options = GridOptions

    def quantize(self, weight, options, context):
        step = max(float(weight.abs().max()) / 120, (12 * options.cost / 0.7) ** 0.5)
        codes = (weight / step).round().clamp(-127, 127).to(torch.int32) + 127
        step = Floats(torch.tensor([step]).half())
        return Code(tuple(weight.shape), {"codes": Indices(codes, 255), "step": step}, {})

    def reconstruct(self, code, params):
        return (code.indices("codes").float() - 127) * params["step"]

@hookimpl
def vqzoo_quantizers():
    return [Grid()]
"""


def test_methods_of_plugins_may_know_the_price(vqzoo, tmp_path: Path) -> None:
    (tmp_path / "grid.py").write_text(PLUGIN)
    command = [*SMALL, "--packing", "ans", "--size", "105kB", "--plugin", "grid.py", "--json"]
    named = vqzoo(*command, "-m", "a-grid", "--out", "a")
    assert named.exit_code == 0, named.stderr
    record = json.loads(named.stdout)
    costs = {layer["options"]["cost"] for layer in record["layers"] if "cost" in layer["options"]}
    assert costs == {record["budget"]["price"]}
    assert 0.99 * 105_000 <= record["bytes"]["file"] <= 105_000
    default = vqzoo(*command, "--out", "b")
    assert "Method: ecq,a-grid." in default.stderr
    record = json.loads(default.stdout)
    assert "--method ecq,a-grid" in record["command"]
    methods = [layer["method"] for layer in record["layers"]]
    assert set(methods) == {"ecq", "a-grid", "binary"}  # each suits some layer best
    prices = [
        layer["options"].get(name)
        for layer in record["layers"]
        for name in ("price", "cost")
        if name in layer["options"]
    ]
    assert set(prices) == {record["budget"]["price"]}
    counts = ", ".join(f"{name} {methods.count(name)}" for name in ("ecq", "binary", "a-grid"))
    assert f"({counts})" in default.stderr


def test_a_recipe_file_sets_the_budget(vqzoo, tmp_path: Path) -> None:
    recipe = "model: test_resnet\nweights: random\nsize: 120kB\nrules:\n"
    recipe += "  - {layers: layer4*, method: binary}\n  - {layers: fc, method: binary}\n"
    (tmp_path / "mine.yaml").write_text(recipe)
    record = record_of(vqzoo, "run", "--recipe", "mine.yaml", "--out", "a")
    assert 0.99 * 120_000 <= record["bytes"]["file"] <= 120_000
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo/mine.yaml").write_text(recipe)
    planned = vqzoo("zoo", "build", "--dry-run", "--recipes", "zoo", "--out", "z")
    assert "mine: the size is not known before it is built: at most 120kB" in planned.stdout


def test_layers_that_the_user_selects_stay_in_the_command(vqzoo) -> None:
    record = record_of(
        vqzoo, "run", "test_resnet", "--weights", "random", "--lambda", "1e-5", "--layers", "dense",
        "--out", "a",
    )  # fmt: skip
    assert [layer["name"] for layer in record["layers"]] == ["fc"]
    assert "--layers dense" in record["command"]

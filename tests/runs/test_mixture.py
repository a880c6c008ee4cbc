"""Under a budget, each layer gets the method that suits it best."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from vqzoo.progress import SilentWatcher
from vqzoo.runs.recipe import make_recipe
from vqzoo.runs.run import run

# The large layers have fixed sizes here, which keeps the search fast.
RULES = [{"layers": "layer[34]*", "method": "binary"}, {"layers": "fc", "method": "binary"}]
FIELDS = {"model": "test_resnet", "weights": "random", "rules": RULES}
SMALL = ["run", "test_resnet", "--weights", "random", "--rule", "layer[34]*=binary", "--rule",
         "fc=binary"]  # fmt: skip
NAME = "vqzoo.safetensors"


def record_of(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return record


def loss_of(record: dict[str, Any]) -> float:
    return sum(record["budget"]["layers"].values())


def test_a_mixture_at_a_size_predicts_no_more_loss_than_one_method(vqzoo, tmp_path: Path) -> None:
    ran = vqzoo(*SMALL, "-m", "ecq,km,rtn", "--size", "95kB", "--out", "a")
    assert ran.exit_code == 0, ran.stderr
    mixed = record_of(tmp_path / "a")
    assert 0.99 * 95_000 <= mixed["bytes"]["file"] <= 95_000
    assert vqzoo(*SMALL, "-m", "ecq", "--size", "95kB", "--out", "b").exit_code == 0
    assert loss_of(mixed) <= loss_of(record_of(tmp_path / "b"))

    assert mixed["budget"]["methods"] == ["ecq", "km", "rtn", "binary"]
    assert "--method ecq,km,rtn" in mixed["command"]
    assert "km, " in ran.stderr  # "searching λ: km, 12 candidates tried"
    counts = {row["method"]: 0 for row in mixed["layers"]}
    for row in mixed["layers"]:
        counts[row["method"]] += 1
    (line,) = [line for line in ran.stdout.splitlines() if line.startswith("methods ")]
    for method in mixed["budget"]["methods"]:
        count = counts.get(method)
        assert f"{method} {f'{count} layer' if count else 'none'}" in line
    card = (tmp_path / "a/README.md").read_text()
    assert "Each layer got the cheapest of several methods: " in card
    assert "(budget.png)" in card
    assert (tmp_path / "a/budget.png").read_bytes().startswith(b"\x89PNG")


def test_at_one_price_no_layer_costs_more_than_with_one_method(tmp_path: Path) -> None:
    price = 3e-5
    costs: dict[str, dict[str, float]] = {}
    for methods in ("ecq", "ecq,km,svd"):
        recipe = make_recipe({**FIELDS, "method": methods, "price": price})
        record = run(recipe, SilentWatcher(), out=tmp_path / methods).record
        assert record.budget is not None
        assert len(record.budget.steps) == 1
        losses = record.budget.layers
        costs[methods] = {r.name: losses[r.name] + 8 * price * r.bytes for r in record.layers}
    header = 8 * price * 400  # bytes by which the header's lines on two methods may differ
    for layer, alone in costs["ecq"].items():
        assert costs["ecq,km,svd"][layer] <= alone + header


class Interruption(SilentWatcher):
    """Interrupts a run when it has begun so many layers."""

    def __init__(self, layers: int) -> None:
        self.left = layers
        self.begun = 0

    def layer_started(self, name: str, index: int, total: int) -> None:
        self.begun += 1
        if self.begun > self.left:
            raise KeyboardInterrupt


def test_an_interrupted_mixture_gives_the_same_bytes(tmp_path: Path) -> None:
    # No method of the list knows the price: every layer has a point of a ladder.
    recipe = make_recipe({**FIELDS, "method": "km,svd", "price": 1e-4, "seed": 3})
    watcher = Interruption(10**6)
    whole = run(recipe, watcher, out=tmp_path / "whole")
    chosen = {row.method for row in whole.record.layers}
    assert "km" in chosen or "svd" in chosen
    layers = len(whole.record.layers)
    for place, count in enumerate((watcher.begun - layers - 5, watcher.begun - 3)):
        out = tmp_path / str(place)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, Interruption(count), out=out)
        partial = tmp_path / f"{place}.partial"
        assert partial.exists() == (place == 1)  # the search itself leaves nothing
        # A damaged layer is compressed again, by the method and the options that it had.
        for file in sorted(partial.glob("layers/*.safetensors"))[:2]:
            file.write_bytes(b"damaged")
        again = run(recipe, SilentWatcher(), out=out)
        assert again.record.budget == whole.record.budget
        assert (out / NAME).read_bytes() == (whole.folder / NAME).read_bytes()


def test_rules_and_recipe_files_take_several_methods(vqzoo, tmp_path: Path) -> None:
    rule = "layer1.0.conv1=km, rtn"
    (tmp_path / "mine.yaml").write_text(
        "model: test_resnet\nweights: random\nprice: 1.0e-3\nlayers: [layer1.0.conv1]\n"
        "rules:\n  - {layers: layer1.0.conv1, method: 'km, rtn'}\n"
    )
    ran = vqzoo("run", "--recipe", "mine.yaml", "--out", "a")
    assert ran.exit_code == 0, ran.stderr
    record = record_of(tmp_path / "a")
    assert [row["method"] for row in record["layers"]] in (["km"], ["rtn"])
    assert set(record["budget"]["methods"]) == {"km", "rtn"}
    words = shlex.split(record["command"])[1:]
    assert rule.replace(" ", "") in words
    assert vqzoo(*words, "--out", "b").exit_code == 0
    assert (tmp_path / "a" / NAME).read_bytes() == (tmp_path / "b" / NAME).read_bytes()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("-m ecq,km", "ecq,km: it takes a budget to choose between methods: give --size"),
        ("--rule fc=km,pq -m km", "km,pq: it takes a budget"),
        ("-m ecq,km -o k=4 --size 1MB", "leave them out beside ecq,km"),
        ("-m ecq --size 1MB --rule fc=km,pq:ratio=8", "leave them out beside km,pq"),
        ("-m ecq,,km --size 1MB", "write NAME,NAME, as in 'ecq,pq'"),
        ("-m km,km --size 1MB", "km stands there twice"),
        ("-m ecq,kmeans --size 1MB", "no method called 'kmeans'"),
        ("-m km --size 1MB", "or several, as in ecq,km, or --ratio"),
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

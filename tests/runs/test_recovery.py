"""`vqzoo run --recover`: answers nearer to the dense network's, in a file of the same size."""

import json
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

import vqzoo
from vqzoo.data.evaluation_data import open_data
from vqzoo.models.dense import find_model
from vqzoo.progress import SilentWatcher
from vqzoo.runs.recipe import make_recipe
from vqzoo.runs.run import run

FIELDS: dict[str, Any] = {
    "model": "alexnet_mini.fmnist",
    "method": "km",
    "options": {"k": 3},
    "calibrate": "fmnist",
    "layers": ("features.0", "features.4", "classifier.6"),
    "calibration_images": 64,
    "images": 200,
}
FILE = "vqzoo.safetensors"


@pytest.fixture(scope="module")
def recovered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact made with recovery."""
    out = tmp_path_factory.mktemp("recovery") / "recovered"
    return run(make_recipe(FIELDS | {"recover": True}), SilentWatcher(), out=out).folder


def report_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text())


def divergence(folder: Path) -> float:
    """KL from the dense network's answers to 200 test images, nats."""
    dense = find_model("alexnet_mini.fmnist", SilentWatcher()).module.eval()
    batches = list(open_data("fmnist", dense, images=200).batches())
    with torch.no_grad():
        answers, wanted = (
            torch.cat([network(batch.images) for batch in batches]).log_softmax(1)
            for network in (vqzoo.load(folder), dense)
        )
    return float(functional.kl_div(answers, wanted, reduction="batchmean", log_target=True))


def test_answers_come_nearer_and_the_size_stays(recovered: Path, tmp_path: Path) -> None:
    plain = run(make_recipe(FIELDS), SilentWatcher(), out=tmp_path / "plain").folder
    before, after = report_of(plain), report_of(recovered)
    assert after["bytes"]["file"] == before["bytes"]["file"] == (plain / FILE).stat().st_size
    assert divergence(recovered) < 0.8 * divergence(plain)
    old, new = load_file(plain / FILE), load_file(recovered / FILE)
    assert old.keys() == new.keys()
    integers = [key for key, tensor in old.items() if not tensor.is_floating_point()]
    moved = [key for key in integers if not torch.equal(old[key], new[key])]
    assert bool(moved) == bool(after["recovery"]["codes"])


def test_the_record_says_what_recovery_did(recovered: Path) -> None:
    record = report_of(recovered)["recovery"]
    assert (record["data"], record["images"]) == ("fmnist, 64 training images", 64)
    assert record["held_out"] == 16
    assert record["divergence"]["after"] < record["divergence"]["before"]
    assert record["divergence"]["after"] == min(record["epochs"])
    assert record["epochs"][record["best_epoch"]] == min(record["epochs"])
    card = (recovered / "README.md").read_text()
    assert "on 16 images held out" in card


class Interruption(SilentWatcher):
    """Interrupts a run in a step of recovery, and remembers the steps before."""

    def __init__(self, step: str) -> None:
        self.step, self.seen = step, list[str]()

    @contextmanager
    def training(self, text: str):
        if self.step in text:
            raise KeyboardInterrupt
        self.seen.append(text)
        yield lambda done, total, metrics: None


def test_an_interrupted_recovery_goes_on_and_ends_with_the_same_bytes(
    recovered: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(FIELDS | {"recover": True})
    seen: list[list[str]] = []
    for step in ("block 2", "epoch 2", "never"):
        watcher = Interruption(step)
        if step == "never":
            folder = run(recipe, watcher, out=tmp_path / "again").folder
        else:
            with pytest.raises(KeyboardInterrupt):
                run(recipe, watcher, out=tmp_path / "again")
        seen.append(watcher.seen)
    assert (folder / FILE).read_bytes() == (recovered / FILE).read_bytes()
    steps = [step for part in seen for step in part]
    assert len(steps) == len(set(steps))  # no step was done twice


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--method", "km", "--repair", "fmnist"], "give one of the three"),
        (["--method", "km", "--finetune", "1"], "give one of the three"),
        (["--method", "km", "--calibrate", "none"], "give --calibrate imagefolder:PATH"),
    ],
    ids=["repair", "fine-tuning", "no-images"],
)
def test_what_recovery_cannot_go_with_is_refused(vqzoo, arguments: list[str], reason: str) -> None:
    result = vqzoo("run", "alexnet_mini.fmnist", "--recover", *arguments)
    assert result.exit_code == 2
    assert reason in result.stderr

"""Limits on the loss of a network that is fine-tuned: it is judged as it will be stored."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vqzoo.errors import UsageError
from vqzoo.progress import SilentWatcher
from vqzoo.runs.recipe import make_recipe
from vqzoo.runs.run import run

STAGED = {"layers": "stages.3.*", "method": "deep-compression"}
TUNE = {"epochs": 1, "data": "imagefolder:pictures", "batch_size": 4}


@pytest.fixture(autouse=True)
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few pictures without classes in `pictures`."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for i in range(20):
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i}.png")


def fields(**changes: Any) -> dict[str, Any]:
    layers = ("head.fc",)
    return {"model": "test_convnext", "weights": "random", "layers": layers, **changes}


def test_the_smallest_file_is_sought_among_fine_tuned_networks(tmp_path: Path) -> None:
    lines: list[str] = []
    watcher = SilentWatcher()
    watcher.say = lines.append  # type: ignore[method-assign]
    recipe = make_recipe(fields(max_kl=1e-3, finetune=TUNE))
    record = run(recipe, watcher, out=Path("a")).record
    budget = record.budget
    assert budget is not None
    assert budget.held_out is not None
    tuned = [line for line in lines if "fine-tuned, " in line]
    assert 1 <= len(tuned) <= 5
    judged = budget.steps[-len(tuned) :]
    assert budget.held_out.images == 2  # those that validate fine-tuning
    assert budget.held_out in [step.held_out for step in judged]
    assert budget.held_out.kl <= 1e-3
    (chosen,) = [step for step in judged if step.held_out == budget.held_out]
    # With what fine-tuning made of the dense tensors; checksums in the index are others.
    assert abs(chosen.bytes - record.bytes.file) < 64
    best = min(e.validation_loss for e in record.finetuning.history)
    assert best == record.finetuning.history[record.finetuning.best_epoch].validation_loss
    # What the search fine-tuned is not fine-tuned again, and the same request gives the same file.
    assert "Resuming fine-tuning after epoch 1 of 1." in lines
    assert not list(Path().rglob("*.pt"))
    run(recipe, SilentWatcher(), out=Path("b"))
    first, second = (Path(name, "vqzoo.safetensors").read_bytes() for name in "ab")
    assert first == second


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"max_drop": 1}, "has no labels for --max-drop"),
        ({"max_kl": 0.1, "rules": [STAGED]}, "stages"),
    ],
)
def test_what_cannot_be_judged_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        run(make_recipe(fields(finetune=TUNE, **changes)), SilentWatcher(), out=Path("a"))

"""What a card says of calibration, repair, stages and fine-tuning."""

from pathlib import Path
from typing import Any

import pytest

from vqzoo.artifact.reader import open_artifact
from vqzoo.plugin.manager import installed_plugins
from vqzoo.report.card import render_card
from vqzoo.report.record import Record
from vqzoo.report.record_file import read_record

EPOCHS = [
    {"epoch": epoch, "loss": None, "validation_loss": 1.0, "validation_top1": 90.0}
    for epoch in range(4)
]
FINETUNING: dict[str, Any] = {
    "epochs": 3, "train": "all", "optimizer": "adam", "lr": 0.002, "temperature": 2.0,
    "alpha": 0.9, "batch_size": 64, "images": 256, "augment": True, "patience": None,
    "data": "fmnist", "best_epoch": 2, "history": EPOCHS,
}  # fmt: skip
REPAIR: dict[str, Any] = {
    "data": "fmnist",
    "images": 64,
    "norms": ["a"],
    "biases": ["b", "c"],
    "divergence": {"before": 0.2, "after": 0.1},
}


@pytest.fixture
def card(made: Path):
    """The text of the card of a run that also took the steps given."""
    artifact = open_artifact(made)
    record = read_record(artifact)
    assert record is not None
    fields = record.to_dict()

    def render(**steps: object) -> str:
        return render_card(artifact, Record.model_validate(fields | steps), installed_plugins())

    return render


def test_all_steps_are_described(card) -> None:
    text = card(
        calibration={"data": "fmnist", "images": 64},
        repair=REPAIR,
        stages=[{"method": name, "bytes": 1} for name in ("dense", "prune", "pq", "pq")],
        finetuning=FINETUNING,
    )
    assert "weighted errors by each layer's inputs on fmnist" in text
    assert "the statistics of 1 batch norm and 2 biases were corrected on fmnist" in text
    assert "fine-tuning after each: `prune`, then `pq`." in text
    assert "by distillation from the dense model on fmnist; codes stayed fixed" in text
    assert "was lowest after epoch 2 of 3" in text


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        (
            {"size": 2_300_000},
            "2e-06 squared logits, chosen for a file of at most 2,300,000",
        ),
        ({}, "One price of a bit holds for all layers, 2e-06 squared logits."),
        (
            {"max_kl": 0.05, "held_out": True},
            "for a divergence of at most 0.05 nats on fmnist: there it was 0.0400 nats.",
        ),
        (
            {"max_drop": 0.5, "held_out": True},
            "a loss of at most 0.5 points of top-1 on fmnist: there it was -0.30 ± 0.20 points.",
        ),
    ],
)
def test_a_budget_and_how_it_was_kept(card, chosen: dict[str, Any], text: str) -> None:
    judged = {"data": "fmnist", "images": 9, "kl": 0.04, "drop": 0.3, "ci95": 0.2}
    budget: dict[str, Any] = dict.fromkeys(["size", "max_kl", "max_drop", "predicted_loss"])
    budget |= {"price": 2e-6, "layers": {}, "steps": []} | chosen
    budget["held_out"] = judged if chosen.get("held_out") else None
    assert text in card(budget=budget)


def test_steps_that_were_not_taken_are_not_mentioned(card) -> None:
    text = card(finetuning={**FINETUNING, "best_epoch": 0, "teacher": "resnet18"})
    assert "by distillation from `resnet18`" in text
    assert "the values from before fine-tuning were kept" in text
    assert "calibration" not in text
    assert "corrected" not in text
    assert "stages" not in text


def test_without_held_out_images_no_epoch_is_called_the_best(card) -> None:
    history = [{**epoch, "validation_loss": None, "validation_top1": None} for epoch in EPOCHS[1:]]
    text = card(finetuning={**FINETUNING, "best_epoch": 3, "history": history})
    assert "No images were held out: the values of epoch 3, the last, were kept." in text
    assert "lowest" not in text


@pytest.mark.parametrize(
    ("repair", "said"),
    [
        ({"norms": []}, "After compression, 2 biases were corrected"),
        ({"norms": [], "biases": ["b"]}, "After compression, 1 bias was corrected"),
        ({"biases": []}, "the statistics of 1 batch norm were corrected"),
        ({"norms": [], "biases": []}, "nothing was corrected"),
    ],
)
def test_a_repair_names_only_what_it_changed(card, repair: dict[str, Any], said: str) -> None:
    assert said in card(repair=REPAIR | repair)

"""What a card says of calibration, repair, stages and fine-tuning."""

from pathlib import Path

import timm
import torch

import vqzoo
from vqzoo.artifact.reader import open_artifact
from vqzoo.plugin.manager import installed_plugins
from vqzoo.report.card import render_card

RECORD = {
    "model": "test_resnet",
    "bytes": {"dense": 1000, "file": 100},
    "ratio": {"file": 10.0, "theoretical": None},
    "accuracy": None,
    "agreement": None,
    "layers": [],
    "skipped": {},
    "command": "vqzoo run test_resnet",
    "versions": {"vqzoo": "1"},
}
FINETUNING = {"data": "fmnist", "best_epoch": 2, "history": [{}] * 4}


def test_what_was_done_beside_compressing_is_told(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vqzoo.compress(timm.create_model("test_resnet"), "rtn").save(tmp_path / "a")

    def card(**done: object) -> str:
        return render_card(open_artifact(tmp_path / "a"), RECORD | done, installed_plugins())

    text = card(
        calibration={"data": "fmnist", "images": 64},
        repair={"data": "fmnist", "images": 64, "norms": ["a"], "biases": ["b", "c"]},
        stages=[{"method": name} for name in ("dense", "prune", "pq", "pq")],
        finetuning=FINETUNING,
    )
    assert "weighed errors by what each layer saw of calibration images: fmnist" in text
    assert "1 batch norms and 2 biases" in text
    assert "fine-tuned after each: `prune`, then `pq`." in text
    assert "codes stayed, the dense model taught the rest. It did best after epoch 2 of 3" in text
    text = card(finetuning={**FINETUNING, "best_epoch": 0, "teacher": "resnet18"})
    assert "`resnet18` taught the rest" in text
    assert "the start is kept" in text
    assert "calibration" not in text

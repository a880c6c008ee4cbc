"""What a compressed network does on images, beside the dense one."""

from typing import Any

import torch
from torch import nn

from vqzoo.data.evaluation_data import Data
from vqzoo.evaluation.accuracy import Evaluation, agreement, evaluate
from vqzoo.progress import Watcher
from vqzoo.report.record import accuracy_block, agreement_block


def accuracy(
    model: nn.Module, data: Data | None, device: torch.device, watcher: Watcher, which: str
) -> Evaluation | None:
    """Accuracy of the `which` model, None where there is no data or it has no labels."""
    if data is None or not data.labelled:
        return None
    with watcher.images(f"evaluating the {which} model") as steps:
        return evaluate(model, data, device=device, progress=steps)


def before_and_after(
    before: Evaluation | None,
    dense: nn.Module,
    compressed: nn.Module,
    data: Data | None,
    device: torch.device,
    watcher: Watcher,
) -> dict[str, Any]:
    """Accuracy before and after, or agreement where images have no labels, or neither.

    `before` is what `accuracy` gave for the dense model.
    """
    after = accuracy(compressed, data, device, watcher, "compressed")
    if before is not None and after is not None:
        return {"accuracy": accuracy_block(before, after), "agreement": None}
    if data is None:
        return {"accuracy": None, "agreement": None}
    with watcher.images("comparing with the dense model") as steps:
        agreed = agreement(dense, compressed, data, device=device, progress=steps)
    return {"accuracy": None, "agreement": agreement_block(agreed)}

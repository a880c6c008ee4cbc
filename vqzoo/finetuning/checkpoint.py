"""Where fine-tuning stood at the end of an epoch."""

import pickle
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqzoo.artifact.files import new_file


@dataclass(frozen=True)
class Checkpoint:
    """All that the next epoch follows from; what is random is drawn from seed and epoch alone.

    Attributes:
        epoch: epochs done.
        tensors: what learns, as `Student.snapshot` gives it.
        optimizer: its state dict.
        best_epoch: the epoch of least validation loss, 0 for the start.
        best: what learned had learned by then.
        history: one entry an epoch, the start's first.
    """

    epoch: int
    tensors: dict[str, Tensor]
    optimizer: dict[str, Any]
    best_epoch: int
    best: dict[str, Tensor]
    history: list[dict[str, Any]]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write it whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as temporary:
        torch.save(asdict(checkpoint), temporary)


def load_checkpoint(path: Path) -> Checkpoint | None:
    """Read it; None where there is none, or none that can be read."""
    try:
        return Checkpoint(**torch.load(path, weights_only=True))
    except (OSError, EOFError, RuntimeError, TypeError, pickle.UnpicklingError, zipfile.BadZipFile):
        return None

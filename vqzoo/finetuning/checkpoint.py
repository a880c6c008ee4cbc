"""The state of fine-tuning at the end of an epoch, saved so that a run can resume."""

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
    """Everything that the next epoch depends on; random numbers follow from seed and epoch.

    Attributes:
        epoch: number of epochs done.
        tensors: the trained tensors, from `Student.snapshot`.
        optimizer: the optimizer's state dict.
        best_epoch: the epoch of least validation loss; 0 for the start.
        best: the trained tensors after that epoch.
        history: one entry per epoch, beginning with the start; see `FinetuningResult`.
    """

    epoch: int
    tensors: dict[str, Tensor]
    optimizer: dict[str, Any]
    best_epoch: int
    best: dict[str, Tensor]
    history: list[dict[str, Any]]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, replacing the file only when the new one is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as temporary:
        torch.save(asdict(checkpoint), temporary)


def load_checkpoint(path: Path) -> Checkpoint | None:
    """Read a checkpoint; None if the file does not exist or cannot be read."""
    try:
        return Checkpoint(**torch.load(path, weights_only=True))
    except (OSError, EOFError, RuntimeError, TypeError, pickle.UnpicklingError, zipfile.BadZipFile):
        return None

"""What recovery has learned so far, saved so that an interrupted run goes on."""

import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vqzoo.artifact.files import new_file


@dataclass(frozen=True)
class RecoveryState:
    """A folder with a file for each step of recovery.

    Attributes:
        folder: of the run that recovery belongs to; None to save nothing.
    """

    folder: Path | None

    def save(self, step: str, values: dict[str, Any]) -> None:
        """Save a step's values, tensors and plain data; the file is replaced when the new one is
        complete."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with new_file(self._path(step)) as temporary:
            torch.save(values, temporary)

    def load(self, step: str) -> dict[str, Any] | None:
        """A step's values; None if there are none, or only a damaged file."""
        if self.folder is None:
            return None
        try:
            values: dict[str, Any] = torch.load(self._path(step), weights_only=True)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile):
            return None
        return values

    def _path(self, step: str) -> Path:
        assert self.folder is not None
        return self.folder / f"recovery-{step}.pt"

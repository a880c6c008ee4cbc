"""What a run would show in a terminal, as lines of a file."""

import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TextIO

from vqzoo.errors import VqzooWarning
from vqzoo.progress import SilentWatcher, Steps, TrainingSteps


class LogWatcher(SilentWatcher):
    """A `Watcher` that writes lines with the time of day."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def say(self, text: str) -> None:
        """Write a line."""
        print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=self._file, flush=True)

    def note(self, layer: str, text: str) -> None:
        """Write a line about a layer."""
        self.say(f"{layer}: {text}")

    def layer_started(self, name: str, index: int, total: int) -> None:
        """Write which layer begins."""
        self.say(f"layer {index + 1} of {total}: {name}")

    def phase(self, text: str) -> AbstractContextManager[None]:
        """Write what begins."""
        self.say(text)
        return super().phase(text)

    def images(self, text: str) -> AbstractContextManager[Steps]:
        """Write what begins."""
        self.say(text)
        return super().images(text)

    def training(self, text: str) -> AbstractContextManager[TrainingSteps]:
        """Write what begins."""
        self.say(text)
        return super().training(text)


@contextmanager
def log_to(path: Path, process: int) -> Iterator[LogWatcher]:
    """Append what is said and warned in the block to a file; its folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file, warnings.catch_warnings():
        log = LogWatcher(file)
        log.say(f"process {process}")

        def warn(message: Warning | str, category: type[Warning], *_: object) -> None:
            if issubclass(category, VqzooWarning):
                log.say(f"warning: {message}")

        warnings.showwarning = warn  # type: ignore[assignment]
        yield log

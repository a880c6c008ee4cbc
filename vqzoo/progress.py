"""Progress callbacks for a run."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Steps = Callable[[int, int | None], None]
TrainingSteps = Callable[[int, int | None, str], None]


class Progress(Protocol):
    """Progress callbacks for the loop over layers."""

    def layer_started(self, name: str, index: int, total: int) -> None:
        """Layer `name` begins; it is number `index` (from 0) of `total`. Where several are
        compressed at a time, `index` of them have ended, and `name` is one that is under way."""

    def layer_step(self, done: int, total: int) -> None:
        """`done` of `total` steps of the current layer are complete."""

    def note(self, layer: str, text: str) -> None:
        """Report something about a layer that the user should know, such as a clamped option."""


class Watcher(Progress, Protocol):
    """Progress callbacks for a whole run: the layers, and the work around them."""

    def say(self, text: str) -> None:
        """Report something that the user should read."""

    def phase(self, text: str) -> AbstractContextManager[None]:
        """Enter a step of unknown length."""

    def images(self, text: str) -> AbstractContextManager[Steps]:
        """Enter a step whose callback takes (images done, total images)."""

    def training(self, text: str) -> AbstractContextManager[TrainingSteps]:
        """Enter a step like `images` whose callback also takes a line of current metrics."""


class SilentProgress:
    """A Progress that reports nothing."""

    def layer_started(self, name: str, index: int, total: int) -> None:
        """Do nothing."""

    def layer_step(self, done: int, total: int) -> None:
        """Do nothing."""

    def note(self, layer: str, text: str) -> None:
        """Do nothing."""


class SilentWatcher(SilentProgress):
    """A Watcher that reports nothing."""

    def say(self, text: str) -> None:
        """Do nothing."""

    def phase(self, text: str) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()

    def images(self, text: str) -> AbstractContextManager[Steps]:
        """Do nothing."""
        return nullcontext(lambda done, total: None)

    def training(self, text: str) -> AbstractContextManager[TrainingSteps]:
        """Do nothing."""
        return nullcontext(lambda done, total, metrics: None)

"""Who watches a run."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from vqzoo.compression.progress import Progress, Silent

Steps = Callable[[int, int | None], None]
TrainingSteps = Callable[[int, int | None, str], None]


class Watcher(Progress, Protocol):
    """A Progress that is also told of what is around the layers."""

    def say(self, text: str) -> None:
        """Something that the user should read."""

    def phase(self, text: str) -> AbstractContextManager[None]:
        """A step of unknown length."""

    def images(self, text: str) -> AbstractContextManager[Steps]:
        """A step that calls its context with (images done, images in all)."""

    def training(self, text: str) -> AbstractContextManager[TrainingSteps]:
        """As `images`, with a line of what has been reached besides."""


class SilentWatcher(Silent):
    """A Watcher that tells nobody."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def phase(self, text: str) -> AbstractContextManager[None]:
        """Show nothing."""
        return nullcontext()

    def images(self, text: str) -> AbstractContextManager[Steps]:
        """Show nothing."""
        return nullcontext(lambda done, total: None)

    def training(self, text: str) -> AbstractContextManager[TrainingSteps]:
        """Show nothing."""
        return nullcontext(lambda done, total, reached: None)

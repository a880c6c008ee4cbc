"""Progress of a run in a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from vqzoo.progress import Steps, TrainingSteps


class TerminalWatcher:
    """A `Watcher` that prints to stderr, with progress bars if stderr is a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._layers: TaskID | None = None
        self._layer: TaskID | None = None

    def __enter__(self) -> "TerminalWatcher":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(escape(text), soft_wrap=True)

    def note(self, layer: str, text: str) -> None:
        """Print a line about a layer."""
        self._console.print(f"[yellow]{escape(layer)}:[/] {escape(text)}", soft_wrap=True)

    def layer_started(self, name: str, index: int, total: int) -> None:
        """Advance the bar of all layers, and start the bar of this one."""
        if self._layers is None:
            self._layers = self._progress.add_task("layers", total=total)
            self._layer = self._progress.add_task("", total=None)
        assert self._layer is not None
        self._progress.update(self._layers, completed=index)
        self._progress.reset(self._layer, total=None, description=escape(name))

    def layer_step(self, done: int, total: int) -> None:
        """Advance the bar of this layer."""
        if self._layer is not None:
            self._progress.update(self._layer, completed=done, total=total)

    @contextmanager
    def phase(self, text: str) -> Iterator[None]:
        """Show a bar of unknown length."""
        with self.images(text):
            yield

    @contextmanager
    def images(self, text: str) -> Iterator[Steps]:
        """Show a bar; the layers' bars end."""
        with self.training(text) as show:
            yield lambda done, total: show(done, total, "")

    @contextmanager
    def training(self, text: str) -> Iterator[TrainingSteps]:
        """Show a bar with the latest result of training; the layers' bars end."""
        for task in (self._layers, self._layer):
            if task is not None:
                self._progress.remove_task(task)
        self._layers = self._layer = None
        task = self._progress.add_task(escape(text), total=None)

        def show(done: int, total: int | None, reached: str) -> None:
            shown = f"{text}: {reached}" if reached else text
            self._progress.update(task, completed=done, total=total, description=escape(shown))

        try:
            yield show
        finally:
            self._progress.remove_task(task)

"""Who wants to know how a compression goes."""

from typing import Protocol


class Progress(Protocol):
    """Told of each layer as it is worked on."""

    def layer_started(self, name: str, index: int, total: int) -> None:
        """Layer `name`, the `index`-th (from 0) of `total`, begins."""

    def layer_step(self, done: int, total: int) -> None:
        """`done` of `total` steps of the current layer are through."""

    def note(self, layer: str, text: str) -> None:
        """Something that the user should know about a layer: an option that was clamped."""


class Silent:
    """A Progress that tells nobody."""

    def layer_started(self, name: str, index: int, total: int) -> None:
        """Say nothing."""

    def layer_step(self, done: int, total: int) -> None:
        """Say nothing."""

    def note(self, layer: str, text: str) -> None:
        """Say nothing."""

"""Turns whatever a plugin raises into a one-line error that names the plugin."""

from typing import Any

import torch

from vqzoo.errors import PluginError, VqzooError, cause
from vqzoo.plugin.method import SkipLayer
from vqzoo.plugin.registry import Registered

_PASSED = (SkipLayer, VqzooError, MemoryError, torch.OutOfMemoryError)


class isolated:
    """Wrap calls into a plugin; a class, since networks that run from codes enter it many times.

    Args:
        who: the plugin and what it works on, from `named` or `on_layer`.

    Raises:
        PluginError: the plugin raised anything, `SystemExit` included. `SkipLayer`, vqzoo's own
            errors and out-of-memory errors, an accelerator's included, pass through unchanged.
    """

    __slots__ = ("_who",)

    def __init__(self, who: str) -> None:
        self._who = who

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, _PASSED) or not isinstance(error, Exception | SystemExit):
            return
        raise PluginError(f"{self._who} failed: {cause(error)}") from error


def named(entry: Registered[Any]) -> str:
    """An item and its distribution: "pq (plugin vqzoo)"."""
    return f"{entry.name} (plugin {entry.origin.distribution})"


def on_layer(entry: Registered[Any], layer: str) -> str:
    """An item and the layer it works on: "pq (plugin vqzoo) on layer fc"."""
    return f"{named(entry)} on layer {layer}"

"""Turns whatever a plugin raises into a one-line error that names the plugin."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from vqzoo.errors import PluginError, VqzooError, cause
from vqzoo.plugin.method import SkipLayer
from vqzoo.plugin.registry import Registered


@contextmanager
def isolated(who: str) -> Iterator[None]:
    """Wrap calls into a plugin.

    Args:
        who: the plugin and what it works on, from `named` or `on_layer`.

    Raises:
        PluginError: the plugin raised anything, `SystemExit` included. `SkipLayer`, vqzoo's own
            errors and out-of-memory errors, an accelerator's included, pass through unchanged.
    """
    try:
        yield
    except (SkipLayer, VqzooError, MemoryError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"{who} failed: {cause(error)}") from error


def named(entry: Registered[Any]) -> str:
    """An item and its distribution: "pq (plugin vqzoo)"."""
    return f"{entry.name} (plugin {entry.origin.distribution})"


def on_layer(entry: Registered[Any], layer: str) -> str:
    """An item and the layer it works on: "pq (plugin vqzoo) on layer fc"."""
    return f"{named(entry)} on layer {layer}"

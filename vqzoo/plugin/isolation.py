"""What goes wrong inside a plugin is told as the plugin's, on one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from vqzoo.errors import PluginError, VqzooError, cause
from vqzoo.plugin.method import SkipLayer
from vqzoo.plugin.registry import Registered


@contextmanager
def isolated(who: str) -> Iterator[None]:
    """Call into a plugin inside this block.

    Args:
        who: the plugin and what it works on, as `named` and `on_layer` say it.

    Raises:
        PluginError: whatever a plugin lets escape, `sys.exit` included. `SkipLayer`, vqzoo's own
            errors and the lack of memory, an accelerator's too, go through.
    """
    try:
        yield
    except (SkipLayer, VqzooError, MemoryError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"{who} failed: {cause(error)}") from error


def named(entry: Registered[Any]) -> str:
    """An item and where it came from: "pq (plugin vqzoo)"."""
    return f"{entry.name} (plugin {entry.origin.distribution})"


def on_layer(entry: Registered[Any], layer: str) -> str:
    """`named`, and the layer that it works on."""
    return f"{named(entry)} on layer {layer}"

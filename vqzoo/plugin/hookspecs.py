"""The hooks that vqzoo calls. A plugin implements any of them, marked `@hookimpl`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from vqzoo.plugin.execution.engine import Engine
    from vqzoo.plugin.formats.importer import Importer
    from vqzoo.plugin.packing import Packing
    from vqzoo.plugin.quantizer import Quantizer
    from vqzoo.plugin.selector import LayerSelector
    from vqzoo.plugin.transform import Transform

hookspec = pluggy.HookspecMarker("vqzoo")
hookimpl = pluggy.HookimplMarker("vqzoo")


@hookspec
def vqzoo_quantizers() -> "Sequence[Quantizer]":  # type: ignore[empty-body]
    """Return instances of the quantizers that this plugin provides."""


@hookspec
def vqzoo_transforms() -> "Sequence[Transform]":  # type: ignore[empty-body]
    """Return instances of the transforms that this plugin provides."""


@hookspec
def vqzoo_layer_selectors() -> "Sequence[LayerSelector]":  # type: ignore[empty-body]
    """Return instances of the layer selectors that this plugin provides."""


@hookspec
def vqzoo_packings() -> "Sequence[Packing]":  # type: ignore[empty-body]
    """Return instances of the packings that this plugin provides."""


@hookspec
def vqzoo_importers() -> "Sequence[Importer]":  # type: ignore[empty-body]
    """Return instances of the importers that this plugin provides."""


@hookspec
def vqzoo_executors() -> "Sequence[Engine]":  # type: ignore[empty-body]
    """Return instances of the engines that this plugin provides."""


@hookspec
def vqzoo_models() -> None:
    """Register models with timm's registry (import the module that holds them)."""


@hookspec
def vqzoo_layer_compressed(layer: dict[str, Any], done: int, total: int) -> None:
    """Observe a layer that has just been compressed.

    Args:
        layer: its row of the record ("name", "shape", "bits_per_weight", "sqnr_db", ...).
        done: number of layers compressed so far, including this one.
        total: number of layers to compress.
    """


@hookspec
def vqzoo_run_finished(record: dict[str, Any], folder: str) -> None:
    """Observe a finished run.

    Args:
        record: the contents of report.json.
        folder: path of the artifact.
    """

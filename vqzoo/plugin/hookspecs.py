"""The hooks that vqzoo calls. A plugin implements any of them with `@vqzoo.hookimpl`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from vqzoo.plugin.packing import Packing
    from vqzoo.plugin.quantizer import Quantizer
    from vqzoo.plugin.selector import LayerSelector
    from vqzoo.plugin.transform import Transform

hookspec = pluggy.HookspecMarker("vqzoo")
hookimpl = pluggy.HookimplMarker("vqzoo")


@hookspec
def vqzoo_quantizers() -> "Sequence[Quantizer]":  # type: ignore[empty-body]
    """Return instances of the quantizers that this plugin brings."""


@hookspec
def vqzoo_transforms() -> "Sequence[Transform]":  # type: ignore[empty-body]
    """Return instances of the transforms that this plugin brings."""


@hookspec
def vqzoo_layer_selectors() -> "Sequence[LayerSelector]":  # type: ignore[empty-body]
    """Return instances of the layer selectors that this plugin brings."""


@hookspec
def vqzoo_packings() -> "Sequence[Packing]":  # type: ignore[empty-body]
    """Return instances of the packings that this plugin brings."""


@hookspec
def vqzoo_models() -> None:
    """Register models with timm's registry (import the module that holds them)."""


@hookspec
def vqzoo_layer_compressed(layer: dict[str, Any], done: int, total: int) -> None:
    """Observe a layer that was just compressed.

    Args:
        layer: its row of the record ("name", "shape", "bits_per_weight", "sqnr_db", ...).
        done: layers compressed so far, this one included.
        total: layers to compress.
    """


@hookspec
def vqzoo_run_finished(record: dict[str, Any], folder: str) -> None:
    """Observe a finished run.

    Args:
        record: what report.json holds.
        folder: where the artifact lies.
    """

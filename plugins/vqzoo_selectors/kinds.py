"""Selectors of layers by their kind."""

from collections.abc import Mapping, Sequence

from vqzoo.errors import UsageError
from vqzoo.plugin import LayerInfo, LayerSelector

_DENSE = ("linear", "attention")


class Dense(LayerSelector):
    """Linear layers, which the paper compresses, and the input projections of attention."""

    name = "dense"
    summary = "Linear layers and attention's in_proj (the default, as in the paper)"

    def select(self, layers: Sequence[LayerInfo], text: str) -> Mapping[str, str]:
        """All Linear layers and projections."""
        _refuse_argument(text)
        return {layer.name: "dense layer" for layer in layers if layer.kind in _DENSE}


class Conv(LayerSelector):
    """Convolutions."""

    name = "conv"
    summary = "convolutions, transposed ones included"

    def select(self, layers: Sequence[LayerInfo], text: str) -> Mapping[str, str]:
        """All convolutions."""
        _refuse_argument(text)
        return {layer.name: "convolution" for layer in layers if layer.kind.startswith("conv")}


class All(LayerSelector):
    """All layers that can be compressed."""

    name = "all"
    summary = "every layer that can be compressed, embeddings included"

    def select(self, layers: Sequence[LayerInfo], text: str) -> Mapping[str, str]:
        """All layers."""
        _refuse_argument(text)
        return {layer.name: "every layer" for layer in layers}


def _refuse_argument(text: str) -> None:
    name, colon, _ = text.partition(":")
    if colon:
        raise UsageError(f"{text!r}: the selector {name} takes no argument")

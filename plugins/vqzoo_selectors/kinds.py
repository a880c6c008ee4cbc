"""Selectors of layers by their kind."""

from collections.abc import Mapping, Sequence

from vqzoo.errors import UsageError
from vqzoo.plugin import LayerInfo, LayerSelector


class Dense(LayerSelector):
    """Linear layers, which the paper compresses."""

    name = "dense"
    summary = "Linear layers (the default, as in the paper)"

    def select(self, layers: Sequence[LayerInfo], text: str) -> Mapping[str, str]:
        """All Linear layers."""
        _refuse_argument(text)
        return {layer.name: "dense layer" for layer in layers if layer.kind == "linear"}


class Conv(LayerSelector):
    """Convolutions."""

    name = "conv"
    summary = "Conv1d and Conv2d layers"

    def select(self, layers: Sequence[LayerInfo], text: str) -> Mapping[str, str]:
        """All convolutions."""
        _refuse_argument(text)
        return {layer.name: "convolution" for layer in layers if layer.kind != "linear"}


class All(LayerSelector):
    """All layers that can be compressed."""

    name = "all"
    summary = "every Linear, Conv1d and Conv2d layer"

    def select(self, layers: Sequence[LayerInfo], text: str) -> Mapping[str, str]:
        """All layers."""
        _refuse_argument(text)
        return {layer.name: "every layer" for layer in layers}


def _refuse_argument(text: str) -> None:
    name, colon, _ = text.partition(":")
    if colon:
        raise UsageError(f"{text!r}: the selector {name} takes no argument")

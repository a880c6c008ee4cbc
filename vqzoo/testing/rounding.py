"""The quantizer that transforms are tried with: it needs no plugin, and fits every matrix."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vqzoo.plugin.code import Code, Floats, Indices
from vqzoo.plugin.method import LayerContext
from vqzoo.plugin.quantizer import Quantizer

_MOST = 127


class Rounding(Quantizer):
    """8-bit rounding: W = (q - 127) · s, with one s of float32."""

    name = "kit-rounding"
    summary = "8-bit rounding, for the conformance kit"

    def quantize(self, weight: Tensor, options: Any, context: LayerContext) -> Code:
        """The nearest of 255 levels."""
        scale = weight.abs().max() / _MOST
        codes = (weight / scale.where(scale > 0, 1.0)).round() + _MOST
        shape = (weight.shape[0], weight.shape[1])
        levels = Indices(codes.int(), 2 * _MOST + 1)
        return Code(shape, {"codes": levels, "scale": Floats(scale.reshape(1))})

    def check(self, code: Code) -> None:
        """A code a weight, one scale."""
        code.require_indices("codes", code.shape)
        code.require_floats("scale", (1,))

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        """Scale the levels."""
        return (code.indices("codes").to(params["scale"].dtype) - _MOST) * params["scale"]

"""The quantizer that transforms are tested with. It needs no plugin and takes every matrix."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vqzoo.plugin.code import Code, Floats, Indices
from vqzoo.plugin.method import LayerContext
from vqzoo.plugin.quantizer import Quantizer

_LARGEST = 127


class Rounding(Quantizer):
    """8-bit rounding: W = (q - 127) · s, with one float32 scale s."""

    name = "kit-rounding"
    summary = "8-bit rounding, for the conformance kit"

    def quantize(self, weight: Tensor, options: Any, context: LayerContext) -> Code:
        """Round each weight to the nearest of 255 levels."""
        scale = weight.abs().max() / _LARGEST
        codes = (weight / scale.where(scale > 0, 1.0)).round() + _LARGEST
        shape = (weight.shape[0], weight.shape[1])
        levels = Indices(codes.int(), 2 * _LARGEST + 1)
        return Code(shape, {"codes": levels, "scale": Floats(scale.reshape(1))})

    def check(self, code: Code) -> None:
        """Require one code per weight and one scale."""
        code.require_indices("codes", code.shape)
        code.require_floats("scale", (1,))

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        """Multiply the levels by the scale."""
        return (code.indices("codes").to(params["scale"].dtype) - _LARGEST) * params["scale"]

"""binary: the sign of every weight."""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from vqzoo.numerics.arrays import excess_exponent, row_chunks, times_power
from vqzoo.numerics.decoding.panel_product import Panels
from vqzoo.numerics.feedback.layer import even_weights, feedback_of
from vqzoo.numerics.feedback.levels import Levels, feed_back_levels
from vqzoo.plugin import Code, Floats, Indices, LayerContext, Options, Quantizer, SecondOrder
from vqzoo.plugin.formats.packed_indices import (
    PackedIndices,
    decode_table,
    multiply_table,
    multiply_table_by_columns,
)
from vqzoo_vq.by_answers import best_row_scales, scale_sums, value_weights
from vqzoo_vq.row_scale import scale_product

_SIGNS = torch.tensor([-1.0, 1.0])


class BinaryOptions(Options):
    """Options of binary."""

    scale: Literal["none", "tensor", "row"] = Field(
        "row", description="none as in the paper (weights become ±1), or least-squares scales"
    )


class Binary(Quantizer):
    """W ≈ s · sign(W), with sign(0) = 1."""

    name = "binary"
    multiply_devices = ("cpu", "cuda")
    summary = "the sign of every weight, with a scale for the layer or for each row"
    source = "Gong et al. 2014, arXiv 1412.6115, section 3.2; scales: Rastegari et al. 2016, eq. 6"
    Options = BinaryOptions
    ladder = ({"scale": "tensor"}, {"scale": "row"})
    second_order = True

    def quantize(self, weight: Tensor, options: BinaryOptions, context: LayerContext) -> Code:
        """Store the signs and the mean magnitude, which is the scale of least squared error."""
        if exponent := excess_exponent(weight):
            usual = times_power(weight, -exponent)
            return self.quantize(usual, options, context).times_power(exponent, "scale")
        if context.second_order is not None:
            return self._feed_back(weight, options, context.second_order)
        parts: dict[str, Indices | Floats] = {"codes": Indices((weight >= 0).view(torch.uint8), 2)}
        if options.scale == "tensor":
            parts["scale"] = Floats.of(weight.abs().mean(dtype=torch.float64).float().reshape(1))
        elif options.scale == "row":
            magnitudes = (torch.abs(rows, out=buffer) for rows, buffer in row_chunks(weight))
            parts["scale"] = Floats.scales(torch.cat([part.mean(dim=1) for part in magnitudes]))
        return Code((weight.shape[0], weight.shape[1]), parts)

    def _feed_back(self, weight: Tensor, options: BinaryOptions, second_order: SecondOrder) -> Code:
        """Choose signs column by column, then the scales of least loss for these signs."""
        feedback = feedback_of(second_order.hessian)
        importance = even_weights(second_order.row_weights)
        costs = value_weights(feedback, second_order.row_weights, None)
        steps = (weight.abs() * costs).sum(1) / costs.sum(1)
        if options.scale == "tensor":
            steps = ((steps * importance).sum() / importance.sum()).expand_as(steps)
        elif options.scale == "none":
            steps = torch.ones_like(steps)
        signs = 2.0 * torch.arange(2, device=weight.device) - 1.0
        codes = feed_back_levels(weight, feedback, Levels(signs, steps[:, None])).codes
        parts: dict[str, Indices | Floats] = {"codes": Indices(codes, 2)}
        decoded = signs[codes.long()]
        if options.scale == "tensor":
            sums = scale_sums(weight, decoded, second_order)
            shared, energy = ((part * importance).sum().reshape(1) for part in sums)
            parts["scale"] = Floats.scales((shared / energy.where(energy > 0, 1.0)).float())
        elif options.scale == "row":
            parts["scale"] = Floats.scales(best_row_scales(weight, decoded, second_order))
        return Code((weight.shape[0], weight.shape[1]), parts)

    def check(self, code: Code) -> None:
        """Require a sign for each weight, and a single scale or one for each row."""
        code.require_indices("codes", code.shape)
        if "scale" in code.parts:
            code.require_floats("scale", (1,), code.shape[:1])

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        """The signs times the scale."""
        signs = code.indices("codes").to(torch.float32).mul_(2).sub_(1)
        return signs * params["scale"][:, None] if "scale" in params else signs

    def decode(self, code: Code, params: Mapping[str, Tensor], out: Tensor | None = None) -> Tensor:
        """The signs times the scale, in place."""
        codes = code.index_part("codes")
        if isinstance(codes, PackedIndices):
            out = torch.empty(code.shape, device=codes.packed.device) if out is None else out
            signs = decode_table(codes, _SIGNS.to(out.device), out)
        else:
            out = torch.empty(code.shape, device=codes.values.device) if out is None else out
            signs = out.copy_(codes.values).mul_(2).sub_(1)
        return signs.mul_(params["scale"].detach()[:, None]) if "scale" in params else signs

    def multiply(self, code: Code, params: Mapping[str, Tensor], x: Tensor) -> Tensor | None:
        """Look the signs up in registers, eight a byte."""
        codes = code.index_part("codes")
        return scale_product(multiply_table(codes, _SIGNS, x), params.get("scale"))

    def multiply_by_columns(
        self, code: Code, params: Mapping[str, Tensor], panels: Panels
    ) -> Tensor | None:
        """Look the signs of a few rows and columns up at a time."""
        codes, scale = code.index_part("codes"), params.get("scale")
        column = None if scale is None else scale[:, None]
        return multiply_table_by_columns(codes, _SIGNS, panels, scales=column)

    def row_step(self, code: Code) -> int:
        """Any row."""
        return 1

    def rows(self, code: Code, start: int, stop: int) -> Code:
        """Its signs and, if rows have them, scales."""
        axes = {"scale": 0} if _has_row_scales(code) else {}
        return code.narrow(start, stop, codes=0, **axes)

    def candidates(self, m: int, n: int) -> Iterable[BinaryOptions]:
        """Both kinds of scales; without scales the size of the weights is lost."""
        yield BinaryOptions(scale="row")
        yield BinaryOptions(scale="tensor")

    def layout(self, m: int, n: int, options: BinaryOptions) -> Code:
        """A sign for each weight, and the scales."""
        parts: dict[str, Indices | Floats] = {"codes": Indices.layout(2, m, n)}
        if options.scale != "none":
            parts["scale"] = Floats.layout("float16", 1 if options.scale == "tensor" else m)
        return Code((m, n), parts)

    def expected_error(self, m: int, n: int, options: BinaryOptions) -> float:
        """1 - 2/π for Gaussian weights; row scales are never worse than a single scale."""
        return {"none": 1.0, "tensor": 0.37, "row": 0.363}[options.scale]

    def paper_bits(self, m: int, n: int, options: BinaryOptions) -> float:
        """m·n, a ratio of 32."""
        return m * n


def _has_row_scales(code: Code) -> bool:
    return "scale" in code.parts and code.require_floats("scale", (-1,)).stored.numel() > 1

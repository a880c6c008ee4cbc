"""A transform: rows divided by a power of their largest magnitude, and multiplied by it again."""

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor

from vqzoo.plugin import Code, Floats, LayerContext, Options, Transform, hookimpl

vqzoo_contract = 1


class RowPeaksOptions(Options):
    """What users give as --transform row-peaks:power=0.5."""

    power: float = Field(1.0, ge=0, le=1, description="1 makes all rows alike, 0 does nothing")


class RowPeaks(Transform):
    """Users write --transform row-peaks."""

    name = "row-peaks"
    summary = "rows divided by a power of their largest magnitude"
    Options = RowPeaksOptions

    def forward(
        self, weight: Tensor, options: RowPeaksOptions, context: LayerContext
    ) -> tuple[Tensor, Code]:
        """The matrix to quantize, and what undoing needs."""
        peaks = weight.abs().amax(dim=1).pow(options.power)
        least = peaks.max() * 2**-28  # what float16 can hold beside the largest
        stored = Floats.scales(peaks.clamp(min=least).where(peaks.max() > 0, 1.0))
        shape = (weight.shape[0], weight.shape[1])
        return weight / stored.values[:, None], Code(shape, {"peaks": stored})

    def check(self, code: Code) -> None:
        """One peak a row."""
        code.require_floats("peaks", code.shape[:1])

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        """Undo: the quantized matrix is the child `weight`."""
        return params["weight"] * params["peaks"][:, None]


@hookimpl
def vqzoo_transforms() -> list[Transform]:
    """What this plugin brings."""
    return [RowPeaks()]

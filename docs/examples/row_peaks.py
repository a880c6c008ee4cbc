"""A transform that divides each row by a power of its largest magnitude."""

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor

from vqzoo.plugin import Code, Floats, LayerContext, Options, Transform, hookimpl

vqzoo_contract = 1


class RowPeaksOptions(Options):
    """The options of `--transform row-peaks:power=0.5`."""

    power: float = Field(1.0, ge=0, le=1, description="1 makes all peaks equal, 0 does nothing")


class RowPeaks(Transform):
    """The transform of `--transform row-peaks`."""

    name = "row-peaks"
    summary = "rows divided by a power of their largest magnitude"
    Options = RowPeaksOptions

    def forward(
        self, weight: Tensor, options: RowPeaksOptions, context: LayerContext
    ) -> tuple[Tensor, Code]:
        """Return the matrix to quantize, and a Code with what `reconstruct` needs."""
        peaks = weight.abs().amax(dim=1).pow(options.power)
        least = peaks.max() * 2**-28  # the least that float16 holds beside the largest
        stored = Floats.scales(peaks.clamp(min=least).where(peaks.max() > 0, 1.0))
        shape = (weight.shape[0], weight.shape[1])
        return weight / stored.values[:, None], Code(shape, {"peaks": stored})

    def check(self, code: Code) -> None:
        """Require one peak for each row."""
        code.require_floats("peaks", code.shape[:1])

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        """Multiply the rows of the child `weight`, the quantized matrix, by their peaks."""
        return params["weight"] * params["peaks"][:, None]


@hookimpl
def vqzoo_transforms() -> list[Transform]:
    """Register the transform."""
    return [RowPeaks()]

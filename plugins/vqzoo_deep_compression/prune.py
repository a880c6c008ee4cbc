"""prune: weights of small magnitude become zero; any method may take care of the others."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator
from torch import Tensor

from vqzoo.plugin import Code, Floats, LayerContext, Quantizer
from vqzoo_deep_compression.survivors import (
    PruningOptions,
    count_survivors,
    gaps_part,
    scatter,
    survivors,
)


class PruneOptions(PruningOptions):
    """Options of prune."""

    then: str = Field(
        "",
        description="a method for the survivors, a matrix of one row, with its options: km:k=16, "
        "pq:k=256,d=4; without one they are stored as they are",
    )
    dtype: Literal["float16", "float32"] = Field(
        "float16", description="storage of survivors that no other method takes"
    )

    @model_validator(mode="after")
    def _readable(self) -> "PruneOptions":
        method_and_options(self.then)
        return self


class Prune(Quantizer):
    """W[p_i] = v_i at the survivors' positions p_i, zero elsewhere."""

    name = "prune"
    summary = "magnitude pruning; the survivors are kept, or compressed by another method"
    source = "Han et al. 2015, arXiv 1506.02626; Han, Mao, Dally 2016, arXiv 1510.00149, section 2"
    Options = PruneOptions
    ladder = ({"density": 0.05}, {"density": 0.2}, {"density": 0.5})

    def quantize(self, weight: Tensor, options: PruneOptions, context: LayerContext) -> Code:
        """Keep the largest weights."""
        positions = survivors(weight, options, context.kind)
        values = weight.reshape(-1).cpu()[positions]
        shape = (weight.shape[0], weight.shape[1])
        gaps = gaps_part(positions, options.gap_bits)
        method, given = method_and_options(options.then)
        if method:
            child = context.quantize(method, values[None], given)
            return Code(shape, {"gaps": gaps}, {}, {"values": child})
        return Code(shape, {"gaps": gaps, "values": Floats.of(values, options.dtype)})

    def check(self, code: Code) -> None:
        """A value for each survivor, here or in the child."""
        count = count_survivors(code)
        child = code.children.get("values")
        if child is None:
            code.require_floats("values", (count,))
        elif child.code.shape != (1, count):
            raise ValueError(f"{count} survivors, but values of shape {child.code.shape}")

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        """Put the survivors in their places."""
        return scatter(code, params["values"].reshape(-1))

    def decode(self, code: Code, params: Mapping[str, Tensor], out: Tensor | None = None) -> Tensor:
        """The same into `out`."""
        return scatter(code, params["values"].reshape(-1), out)


def method_and_options(text: str) -> tuple[str, dict[str, Any]]:
    """Read `METHOD[:name=value,...]`.

    Raises:
        ValueError: an option without a value.
    """
    method, _, rest = text.partition(":")
    given = {}
    for pair in filter(None, rest.split(",")):
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise ValueError(f"then: {pair!r} is not name=value, as in km:k=16")
        given[name] = value
    return method, given

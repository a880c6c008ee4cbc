"""prune: weights of small magnitude become zero; any method may compress the others."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor

from vqzoo.numerics.decoding.column_products import multiply_sparse
from vqzoo.numerics.decoding.input_products import multiply_sparse_by_input
from vqzoo.numerics.decoding.panel_product import Panels
from vqzoo.numerics.decoding.sparse import SparseMatrix
from vqzoo.plugin import Code, Floats, LayerContext, Quantizer
from vqzoo.plugin.text import parse_call
from vqzoo_deep_compression.survivors import (
    PruningOptions,
    count_survivors,
    gaps_part,
    rows_at_a_time,
    scatter,
    sparse_matrix,
    survivors,
    survivors_in_rows,
)


class PruneOptions(PruningOptions):
    """Options of prune."""

    then: str = Field(
        "",
        description="method and options that compress the survivors, as a matrix of one row: "
        "km:k=16, pq:k=256,d=4; without it they are stored as they are",
    )
    dtype: Literal["float16", "float32"] = Field(
        "float16", description="storage of the survivors, without then"
    )

    @model_validator(mode="after")
    def _check_then(self) -> "PruneOptions":
        parse_call(self.then)
        return self


class Prune(Quantizer):
    """W[p_i] = v_i at the survivors' positions p_i, zero elsewhere."""

    name = "prune"
    summary = "magnitude pruning; the survivors are kept, or compressed by another method"
    source = "Han et al. 2015, arXiv 1506.02626; Han, Mao, Dally 2016, arXiv 1510.00149, section 2"
    Options = PruneOptions
    ladder = ({"density": 0.05}, {"density": 0.2}, {"density": 0.5})

    def quantize(self, weight: Tensor, options: PruneOptions, context: LayerContext) -> Code:
        """Keep the weights of largest magnitude."""
        positions = survivors(weight, options, context.kind)
        values = weight.reshape(-1).cpu()[positions]
        shape = (weight.shape[0], weight.shape[1])
        gaps = gaps_part(positions, options.gap_bits)
        method, method_options = parse_call(options.then)
        if method:
            child = context.quantize(method, values[None], method_options)
            return Code(shape, {"gaps": gaps}, {}, {"values": child})
        return Code(shape, {"gaps": gaps, "values": Floats.of(values, options.dtype)})

    def check(self, code: Code) -> None:
        """Require a value for each survivor, here or in the child."""
        count = count_survivors(code)
        child = code.children.get("values")
        if child is None:
            code.require_floats("values", (count,))
        elif child.code.shape != (1, count):
            raise ValueError(f"values have shape {child.code.shape}, not {(1, count)}")

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        """Put the survivors at their positions."""
        return scatter(code, params["values"].reshape(-1))

    def decode(self, code: Code, params: Mapping[str, Tensor], out: Tensor | None = None) -> Tensor:
        """The same, written to `out`."""
        return scatter(code, params["values"].reshape(-1), out)

    def multiply(self, code: Code, params: Mapping[str, Tensor], x: Tensor) -> Tensor | None:
        """Multiply one input by the survivors alone."""
        if len(x) != 1:
            return None
        return multiply_sparse_by_input(_matrix(code, params), x[0])[None]

    def multiply_by_columns(
        self, code: Code, params: Mapping[str, Tensor], panels: Panels
    ) -> Tensor | None:
        """Multiply by the survivors alone."""
        return multiply_sparse(_matrix(code, params), panels)

    def row_step(self, code: Code) -> int:
        """An eighth of the rows."""
        return rows_at_a_time(code)

    def rows(self, code: Code, start: int, stop: int) -> Code:
        """The survivors in these rows."""
        return survivors_in_rows(code, start, stop, "values")


def _matrix(code: Code, params: Mapping[str, Tensor]) -> SparseMatrix:
    return sparse_matrix(code, params["values"].reshape(-1))

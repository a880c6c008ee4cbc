"""deep-compression: pruning, and one small codebook for the weights that survive."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from vqzoo.numerics.arrays import excess_exponent, times_power
from vqzoo.numerics.clustering.scalar_kmeans import assign_scalar
from vqzoo.numerics.decoding.column_products import multiply_sparse
from vqzoo.numerics.decoding.decode import decode_scalar
from vqzoo.numerics.decoding.input_products import multiply_sparse_by_input
from vqzoo.numerics.decoding.panel_product import Panels
from vqzoo.numerics.decoding.sparse import SparseMatrix
from vqzoo.numerics.feedback.layer import feedback_of
from vqzoo.numerics.feedback.levels import Levels, feed_back_levels
from vqzoo.plugin import Code, Floats, Indices, LayerContext, Quantizer, SecondOrder
from vqzoo.plugin.formats.packed_indices import held_codes
from vqzoo_deep_compression.lloyd import Init, shared_values
from vqzoo_deep_compression.survivors import (
    DENSE_KINDS,
    PruningOptions,
    count_survivors,
    gaps_part,
    rows_at_a_time,
    scatter,
    sparse_matrix,
    survivors,
    survivors_in_rows,
)

CONV_BITS, DENSE_BITS = 8, 5


class DeepCompressionOptions(PruningOptions):
    """Options of deep-compression."""

    bits: int | None = Field(
        None,
        ge=1,
        le=16,
        description=f"bits of the code of a shared value; by default {DENSE_BITS} in a Linear and "
        f"{CONV_BITS} in a convolution",
    )
    init: Init = Field(
        "linear",
        description="initialization of k-means: evenly over the range (the paper's choice, which "
        "keeps large weights), evenly over the distribution, or random weights; or the optimum",
    )
    dtype: Literal["float16", "float32"] = Field("float16", description="codebook storage")


class DeepCompression(Quantizer):
    """W[p_i] ≈ c[code_i] at the survivors' positions p_i, zero elsewhere."""

    name = "deep-compression"
    summary = "magnitude pruning, then a few shared values for the rest; pack with huffman or ans"
    source = "Han, Mao, Dally 2016, arXiv 1510.00149"
    Options = DeepCompressionOptions
    ladder = (
        {"density": 0.1, "bits": 3},
        {"density": 0.3, "bits": 4},
        {"density": 0.6, "bits": 6},
    )
    second_order = True

    def quantize(
        self, weight: Tensor, options: DeepCompressionOptions, context: LayerContext
    ) -> Code:
        """Prune, cluster the survivors, and assign them to the centroids as stored."""
        positions = survivors(weight, options, context.kind)
        values = weight.reshape(-1).cpu()[positions]
        bits = options.bits or (DENSE_BITS if context.kind in DENSE_KINDS else CONV_BITS)
        k = min(1 << bits, len(values))
        if k < 1 << bits:
            context.note(f"only {k} weights survive, so each has its own value")
        if exponent := excess_exponent(values):
            values, weight = times_power(values, -exponent), times_power(weight, -exponent)
        if context.second_order is None:
            shared = shared_values(values, k, options.init, context.seed)
            codebook = Floats.of(shared, options.dtype)
            codes = assign_scalar(values, codebook.values)
        else:
            second_order, seed = context.second_order, context.seed
            codebook, codes = _fed_back(weight, positions, k, options, second_order, seed)
        parts: dict[str, Indices | Floats] = {
            "gaps": gaps_part(positions, options.gap_bits),
            "codes": Indices(codes, k),
            "codebook": codebook.times_power(exponent),
        }
        return Code((weight.shape[0], weight.shape[1]), parts)

    def check(self, code: Code) -> None:
        """Require a code for each survivor, and a centroid for each code."""
        codes = code.require_indices("codes", (count_survivors(code),))
        code.require_floats("codebook", (codes.cardinality,))

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        """Look up the survivors' values; the gradient of a centroid is the sum over its weights."""
        return scatter(code, params["codebook"][code.indices("codes").long()])

    def decode(self, code: Code, params: Mapping[str, Tensor], out: Tensor | None = None) -> Tensor:
        """The same without gradients, written to `out`."""
        return scatter(code, _values(code.index_part("codes"), params["codebook"]), out)

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
        return survivors_in_rows(code, start, stop, "codes")

    def stages(self, options: DeepCompressionOptions) -> Sequence[tuple[str, Mapping[str, Any]]]:
        """Prune and retrain before values are shared (the paper's section 2)."""
        names = {"density", "threshold", "gap_bits"}
        return [("prune", options.model_dump(include=names, exclude_none=True))]


def _matrix(code: Code, params: Mapping[str, Tensor]) -> SparseMatrix:
    codes, table = code.index_part("codes"), params["codebook"].detach()
    held, width = held_codes(codes)
    if width == 8 and codes.cardinality <= 256:
        return sparse_matrix(code, held, table)
    return sparse_matrix(code, _values(codes, table))


def _values(codes: Indices, codebook: Tensor) -> Tensor:
    """The values of the survivors, (survivors,) float32."""
    values = codes.values
    return decode_scalar(values[None], codebook, codebook.new_empty(1, len(values)))[0]


def _fed_back(
    weight: Tensor,
    positions: Tensor,
    k: int,
    options: DeepCompressionOptions,
    second_order: SecondOrder,
    seed: int,
) -> tuple[Floats, Tensor]:
    """Shared values and codes (survivors,): survivors first make up for what was pruned, then for
    the errors of sharing."""
    feedback = feedback_of(second_order.hessian)
    positions = positions.to(weight.device)
    kept = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
    kept[positions] = True
    kept = kept.view_as(weight)

    def prune(columns: Tensor, block: Tensor, metric: Tensor) -> Tensor:
        return block.where(kept[:, columns], 0.0)

    survivors = feedback.quantize(weight, prune).view(-1)[positions]
    values = shared_values(survivors.cpu(), k, options.init, seed)
    codebook = Floats.of(values, options.dtype)
    levels = Levels(codebook.values.to(weight.device), torch.ones_like(weight[:, :1]), kept=kept)
    codes = feed_back_levels(weight, feedback, levels).codes
    return codebook, codes.view(-1)[positions].cpu()

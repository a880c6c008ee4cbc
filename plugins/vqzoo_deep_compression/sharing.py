"""deep-compression: pruning, and one small codebook for what survives."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from vqzoo.numerics.clustering.scalar_kmeans import assign_scalar, scalar_centroids
from vqzoo.numerics.decoding.decode import decode_scalar
from vqzoo.plugin import Code, Floats, Indices, LayerContext, Quantizer
from vqzoo_deep_compression.lloyd import scalar_lloyd
from vqzoo_deep_compression.survivors import (
    PruningOptions,
    count_survivors,
    gaps_part,
    scatter,
    survivors,
)

CONV_BITS, DENSE_BITS = 8, 5


class DeepCompressionOptions(PruningOptions):
    """Options of deep-compression."""

    bits: int | None = Field(
        None,
        ge=1,
        le=16,
        description=f"bits of a shared value's code; {DENSE_BITS} in a Linear and {CONV_BITS} in "
        "a convolution unless given",
    )
    init: Literal["linear", "density", "random", "optimal"] = Field(
        "linear",
        description="where k-means starts: evenly over the range (the paper's choice: it keeps "
        "large weights), evenly over the distribution, at random weights; or its optimum",
    )
    dtype: Literal["float16", "float32"] = Field("float16", description="codebook storage")


class DeepCompression(Quantizer):
    """W[p_i] ≈ c[code_i] at the survivors' positions p_i, zero elsewhere."""

    name = "deep-compression"
    summary = "prune by magnitude, share a few values among what survives; pack with huffman or ans"
    source = "Han, Mao, Dally 2016, arXiv 1510.00149"
    Options = DeepCompressionOptions
    ladder = (
        {"density": 0.1, "bits": 3},
        {"density": 0.3, "bits": 4},
        {"density": 0.6, "bits": 6},
    )

    def quantize(
        self, weight: Tensor, options: DeepCompressionOptions, context: LayerContext
    ) -> Code:
        """Prune, cluster the survivors, and assign them to the centroids as stored."""
        positions = survivors(weight, options, context.kind)
        values = weight.reshape(-1).cpu()[positions]
        bits = options.bits or (DENSE_BITS if context.kind == "linear" else CONV_BITS)
        k = min(1 << bits, len(values))
        if k < 1 << bits:
            context.note(f"only {k} weights survive: each has a value of its own")
        codebook = Floats.of(_centroids(values, k, options.init, context.seed), options.dtype)
        codes = assign_scalar(values, codebook.values)
        parts: dict[str, Indices | Floats] = {
            "gaps": gaps_part(positions, options.gap_bits),
            "codes": Indices(codes, k),
            "codebook": codebook,
        }
        return Code((weight.shape[0], weight.shape[1]), parts)

    def check(self, code: Code) -> None:
        """A code for each survivor, a centroid for each of the codes."""
        codes = code.require_indices("codes", (count_survivors(code),))
        code.require_floats("codebook", (codes.cardinality,))

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        """Look the survivors' values up; a centroid's gradient is the sum over its weights."""
        return scatter(code, params["codebook"][code.indices("codes").long()])

    def decode(self, code: Code, params: Mapping[str, Tensor], out: Tensor | None = None) -> Tensor:
        """The same without gradients, into `out`."""
        codes, codebook = code.indices("codes"), params["codebook"]
        values = decode_scalar(codes[None], codebook, codebook.new_empty(1, len(codes)))[0]
        return scatter(code, values, out)

    def stages(self, options: DeepCompressionOptions) -> Sequence[tuple[str, Mapping[str, Any]]]:
        """Retrain what survives before its values are shared (the paper's section 2)."""
        given = options.model_dump(include={"density", "threshold", "gap_bits"}, exclude_none=True)
        return [("prune", given)]


def _centroids(values: Tensor, k: int, init: str, seed: int) -> Tensor:
    """(k,) ascending centroids of `values`: Lloyd's iterations from one of the paper's starts."""
    if init == "optimal":
        return scalar_centroids(values, k)
    if init == "linear":
        start = torch.linspace(float(values.min()), float(values.max()), k)
    elif init == "density":
        shares = (torch.arange(k, dtype=torch.float64) + 0.5) / k
        start = values.sort().values[(shares * len(values)).long()]
    else:
        generator = torch.Generator().manual_seed(seed)
        start = values[torch.randperm(len(values), generator=generator)[:k]]
    return scalar_lloyd(values, start)

"""km: scalar k-means over all weights of a layer."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Literal, get_args

import torch
from pydantic import Field
from torch import Tensor

from vqzoo.numerics.arrays import empty, excess_exponent, times_power
from vqzoo.numerics.clustering.scalar_kmeans import assign_scalar, scalar_centroids
from vqzoo.numerics.decoding.decode import decode_scalar
from vqzoo.numerics.decoding.lookup import look_up_scalar
from vqzoo.numerics.decoding.panel_product import Panels
from vqzoo.numerics.feedback.layer import feedback_of
from vqzoo.numerics.feedback.levels import Chosen, Levels, feed_back_levels
from vqzoo.plugin import (
    Code,
    Floats,
    Indices,
    LayerContext,
    LookUp,
    Options,
    Quantizer,
    SecondOrder,
)
from vqzoo.plugin.formats.packed_indices import (
    decode_table,
    multiply_table,
    multiply_table_by_columns,
)
from vqzoo.plugin.limits import MAX_CARDINALITY
from vqzoo_vq.by_answers import best_row_scales, loss_of, value_weights
from vqzoo_vq.distortion import ROW_SCALE_GAIN, gaussian_distortion
from vqzoo_vq.moves import best_moves, in_units_of, largest_moves
from vqzoo_vq.row_scale import (
    Scale,
    check_row_scale,
    divide_rows,
    fit_row_scale,
    row_scale_column,
    row_sizes,
    scale_layout,
    scale_product,
    scale_rows,
)


class ScalarKMeansOptions(Options):
    """Options of km."""

    k: int = Field(
        16, ge=1, le=MAX_CARDINALITY, description="centroids: 16 take 4 bits for each weight"
    )
    scale: Scale = Field("row", description="an fp16 scale for each row, or none as in the paper")
    exact: bool = Field(False, description="optimal centroids by dynamic programming (slower)")
    dtype: Literal["float16", "float32"] = Field("float16", description="codebook storage")


class ScalarKMeans(Quantizer):
    """W[i, j] ≈ s_i · c[code[i, j]]."""

    name = "km"
    multiply_devices = ("cpu", "cuda")
    summary = "scalar k-means: one codebook of k values for all weights of a layer"
    source = "Gong et al. 2014, arXiv 1412.6115, section 3.2.1"
    Options = ScalarKMeansOptions
    ladder = ({"k": 2}, {"k": 4}, {"k": 16}, {"k": 64})
    second_order = True

    def quantize(self, weight: Tensor, options: ScalarKMeansOptions, context: LayerContext) -> Code:
        """Cluster all weights, with scale=row after dividing rows by their sizes."""
        if exponent := excess_exponent(weight):
            usual = times_power(weight, -exponent)
            return self.quantize(usual, options, context).times_power(exponent, "scale", "codebook")
        sizes = row_sizes(weight, options.scale)
        normalized = weight if sizes is None else divide_rows(weight, sizes)
        if context.second_order is not None:
            return self._feed_back(weight, normalized, sizes, options, context.second_order)
        centroids = scalar_centroids(normalized, options.k, exact=options.exact)
        codebook = Floats.of(centroids, options.dtype)
        codes = assign_scalar(normalized, codebook.values)
        parts: dict[str, Indices | Floats] = {
            "codes": Indices(codes, options.k),
            "codebook": codebook,
        }
        if options.scale == "row":
            decoded = decode_scalar(codes, codebook.values, normalized)  # in its place
            parts["scale"] = fit_row_scale(weight, decoded)
        return Code((weight.shape[0], weight.shape[1]), parts)

    def _feed_back(
        self,
        weight: Tensor,
        normalized: Tensor,
        sizes: Tensor | None,
        options: ScalarKMeansOptions,
        second_order: SecondOrder,
    ) -> Code:
        """Cluster the weights by what their errors cost, then choose codes column by column."""
        feedback = feedback_of(second_order.hessian)
        weights = value_weights(feedback, second_order.row_weights, sizes)
        steps = torch.ones_like(weight[:, :1]) if sizes is None else sizes

        def choose(values: Tensor) -> tuple[Floats, Chosen, float]:
            centroids = scalar_centroids(values, options.k, weights=weights, exact=options.exact)
            codebook = Floats.of(centroids, options.dtype)
            levels = Levels(codebook.values, steps)
            chosen = feed_back_levels(weight, feedback, levels)
            return codebook, chosen, loss_of(weight, levels.of(chosen.codes), second_order)

        # Again on what errors have made of the weights: mostly better, and the better one counts.
        first = choose(normalized)
        second = choose(first[1].targets.div_(steps))
        codebook, chosen, _ = min(first, second, key=lambda one: one[2])
        codes = chosen.codes
        parts: dict[str, Indices | Floats] = {
            "codes": Indices(codes, options.k),
            "codebook": codebook,
        }
        if sizes is not None:
            decoded = decode_scalar(codes, codebook.values, normalized)  # in its place
            parts["scale"] = Floats.scales(best_row_scales(weight, decoded, second_order))
        return Code((weight.shape[0], weight.shape[1]), parts)

    def check(self, code: Code) -> None:
        """Require a code for each weight, and a centroid for each code."""
        codes = code.require_indices("codes", code.shape)
        code.require_floats("codebook", (codes.cardinality,))
        check_row_scale(code)

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        """Look up the centroids."""
        matrix = look_up_scalar(code.indices("codes"), params["codebook"])
        return scale_rows(matrix, params.get("scale"))

    def decode(self, code: Code, params: Mapping[str, Tensor], out: Tensor | None = None) -> Tensor:
        """Look up the centroids, in parallel."""
        codes = code.index_part("codes")
        if out is None:
            out = empty(code.shape, torch.float32, params["codebook"].device)
        return scale_rows(decode_table(codes, params["codebook"], out), params.get("scale"))

    def multiply(self, code: Code, params: Mapping[str, Tensor], x: Tensor) -> Tensor | None:
        """Look up the centroids in registers, where there are few."""
        codes = code.index_part("codes")
        product = multiply_table(codes, params["codebook"], x)
        return scale_product(product, params.get("scale"))

    def multiply_by_columns(
        self, code: Code, params: Mapping[str, Tensor], panels: Panels
    ) -> Tensor | None:
        """Look up the centroids of a few rows and columns at a time."""
        codes, scale = code.index_part("codes"), params.get("scale")
        column = None if scale is None else scale[:, None]
        return multiply_table_by_columns(codes, params["codebook"], panels, scales=column)

    def row_step(self, code: Code) -> int:
        """Any row."""
        return 1

    def rows(self, code: Code, start: int, stop: int) -> Code:
        """Its codes and scales."""
        return code.narrow(start, stop, codes=0, scale=0)

    def form(self, code: Code) -> LookUp:
        """A table of scalars."""
        floats = code.floats()
        return LookUp(
            code.indices("codes"),
            floats["codebook"].reshape(1, -1, 1),
            scale=row_scale_column(floats),
            group=code.shape[1],
        )

    def reassign(
        self,
        code: Code,
        params: Mapping[str, Tensor],
        gradient: Tensor,
        curvature: Tensor,
        share: float,
    ) -> Code | None:
        """Move the weights that promise most to other centroids."""
        slope, bend = in_units_of(params.get("scale"), gradient, curvature)
        book = params["codebook"].reshape(1, -1, 1)
        moves = best_moves(code.indices("codes"), book, slope[:, None], bend[:, None])
        moved = largest_moves([moves], share)
        if moved is None:
            return None
        codes = Indices(moved[0], book.shape[1])
        return replace(code, parts={**code.parts, "codes": codes})

    def fit(
        self, m: int, n: int, options: ScalarKMeansOptions, note: Callable[[str], None]
    ) -> ScalarKMeansOptions:
        """Limit k to the number of weights."""
        if options.k > m * n:
            note(f"k={options.k} is more than the {m * n} weights: k={m * n}")
            options = options.model_copy(update={"k": m * n})
        return options

    def candidates(self, m: int, n: int) -> Iterable[ScalarKMeansOptions]:
        """Code widths of 1 to 12 bits, with and without row scales."""
        for bits in range(1, 13):
            for scale in get_args(Scale):
                yield ScalarKMeansOptions(k=2**bits, scale=scale)

    def layout(self, m: int, n: int, options: ScalarKMeansOptions) -> Code:
        """A code for each weight, a codebook, and a scale for each row."""
        parts: dict[str, Indices | Floats] = {
            "codes": Indices.layout(options.k, m, n),
            "codebook": Floats.layout(options.dtype, options.k),
        }
        return Code((m, n), parts | scale_layout(m, options.scale))

    def expected_error(self, m: int, n: int, options: ScalarKMeansOptions) -> float:
        """The error for Gaussian weights."""
        gain = ROW_SCALE_GAIN if options.scale == "row" else 1.0
        return gain * gaussian_distortion(1, math.log2(options.k))

    def paper_bits(self, m: int, n: int, options: ScalarKMeansOptions) -> float:
        """32·k + m·n·log2 k."""
        return 32 * options.k + m * n * math.log2(options.k)

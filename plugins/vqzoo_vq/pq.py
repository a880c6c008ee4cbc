"""pq: product quantization."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Literal, get_args

import torch
from pydantic import Field
from torch import Tensor

from vqzoo.numerics.arrays import empty, excess_exponent, times_power
from vqzoo.numerics.clustering.kmeans import assign, train_codebooks
from vqzoo.numerics.decoding.decode import decode_pq
from vqzoo.numerics.decoding.lookup import look_up
from vqzoo.numerics.decoding.panel_product import Panels
from vqzoo.plugin import Code, Floats, Indices, LayerContext, LookUp, Options, Quantizer
from vqzoo.plugin.formats.packed_indices import held_blocks
from vqzoo.plugin.limits import MAX_CARDINALITY
from vqzoo_vq.block_products import (
    multiply_blocks,
    multiply_blocks_by_columns,
    multiply_row_blocks_by_columns,
)
from vqzoo_vq.blocks import (
    Axis,
    CodebookScope,
    Cut,
    block_points,
    codebook_groups,
    cut,
    points_per_codebook,
)
from vqzoo_vq.by_answers import best_row_scales
from vqzoo_vq.distortion import ROW_SCALE_GAIN, gaussian_distortion
from vqzoo_vq.moves import best_moves, in_units_of, largest_moves
from vqzoo_vq.pq_feedback import feed_back_columns, feed_back_rows
from vqzoo_vq.refit import refitted
from vqzoo_vq.row_scale import (
    Scale,
    check_row_scale,
    fit_row_scale,
    row_scale_column,
    row_sizes,
    scale_layout,
    scale_product,
    scale_rows,
)


class ProductQuantizationOptions(Options):
    """Options of pq."""

    d: int = Field(4, ge=1, le=32, description="sub-vector length")
    k: int = Field(256, ge=1, le=MAX_CARDINALITY, description="centroids of a codebook")
    axis: Axis = Field("columns", description="axis that is cut into sub-vectors")
    codebook: CodebookScope = Field(
        "layer", description="one codebook for the layer, or one for each block as in the paper"
    )
    scale: Scale = Field("row", description="an fp16 scale for each row, or none as in the paper")
    dtype: Literal["float16", "float32"] = Field("float16", description="codebook storage")


class ProductQuantization(Quantizer):
    """Each sub-vector of length d becomes the nearest of k centroids."""

    name = "pq"
    multiply_devices = ("cpu", "cuda")
    summary = "product quantization: k-means on sub-vectors of length d"
    source = (
        "Gong et al. 2014, arXiv 1412.6115, section 3.2.2; "
        "one codebook for a layer: Stock et al. 2020, arXiv 1907.05686"
    )
    Options = ProductQuantizationOptions
    ladder = ({"d": 4, "k": 4}, {"d": 4, "k": 16}, {"d": 4, "k": 64})
    second_order = True

    def quantize(
        self, weight: Tensor, options: ProductQuantizationOptions, context: LayerContext
    ) -> Code:
        """Cluster the sub-vectors of each block, or of all blocks."""
        if exponent := excess_exponent(weight):
            usual = times_power(weight, -exponent)
            return self.quantize(usual, options, context).times_power(exponent, "scale", "codebook")
        m, n = weight.shape
        shape = cut(m, n, options.d, options.axis)
        parts: dict[str, Indices | Floats] = {}
        cluster = _cluster if context.second_order is None else _feed_back
        for suffix, codes, codebook in cluster(weight, shape, options, context):
            parts["codes" + suffix] = Indices(codes, codebook.stored.shape[1])
            parts["codebook" + suffix] = codebook
        facts = {"d": options.d, "axis": options.axis}
        code = Code((m, n), parts, facts)
        if options.scale == "none":
            return code
        decoded = self.decode(code, code.floats())
        if context.second_order is None:
            scale = fit_row_scale(weight, decoded)
        else:
            scale = Floats.scales(best_row_scales(weight, decoded, context.second_order))
        return Code((m, n), {**parts, "scale": scale}, facts)

    def check(self, code: Code) -> None:
        """Require a code for each sub-vector, and one codebook or one for each block."""
        axis = code.facts.get("axis")
        if axis not in ("columns", "rows"):
            raise ValueError(f"fact 'axis' is {axis!r}, not columns or rows")
        code.require_fact("d", 1, code.shape[1] if axis == "columns" else code.shape[0])
        shape = _cut_of(code)
        for suffix, (blocks, d) in zip(shape.suffixes, shape.widths, strict=True):
            k = code.require_indices("codes" + suffix, (blocks, shape.points)).cardinality
            code.require_floats("codebook" + suffix, (1, k, d), (blocks, k, d))
        check_row_scale(code)

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        """Look up the centroids."""
        shape = _cut_of(code)
        blocks = []
        for suffix in shape.suffixes:
            codes, codebook = code.indices("codes" + suffix), params["codebook" + suffix]
            blocks.append(look_up(codes[:, None], codebook[:, None]))
        across = torch.cat(blocks, dim=1)
        matrix = across if code.facts["axis"] == "columns" else across.T
        return scale_rows(matrix, params.get("scale"))

    def decode(self, code: Code, params: Mapping[str, Tensor], out: Tensor | None = None) -> Tensor:
        """Look up the centroids, in parallel, and write them straight to `out`."""
        shape = _cut_of(code)
        by_columns = code.facts["axis"] == "columns"
        if out is None:
            device = params["codebook" + shape.suffixes[0]].device
            out = empty(code.shape, torch.float32, device)
        across = out if by_columns else out.new_empty(code.shape[1], code.shape[0])
        start = 0
        for suffix, (blocks, d) in zip(shape.suffixes, shape.widths, strict=True):
            target = across[:, start : start + blocks * d]
            part = code.index_part("codes" + suffix)
            codes, width = held_blocks(part, out.device)
            decode_pq(codes, params["codebook" + suffix], target, width)
            start += blocks * d
        if not by_columns:
            out.copy_(across.T)
        return scale_rows(out, params.get("scale"))

    def form(self, code: Code) -> LookUp | None:
        """Tables of vectors, unless the last block is shorter."""
        if _cut_of(code).tail:
            return None
        floats, by_rows = code.floats(), code.facts["axis"] == "rows"
        codes = code.indices("codes")
        return LookUp(
            codes if by_rows else codes.T,
            floats["codebook"],
            by_rows,
            row_scale_column(floats),
            code.shape[1],
        )

    def row_step(self, code: Code) -> int:
        """Any row, or as many as a sub-vector has."""
        return int(code.facts["d"]) if code.facts["axis"] == "rows" else 1

    def rows(self, code: Code, start: int, stop: int) -> Code:
        """Its codes and scale; where rows are cut, those of whole sub-vectors."""
        if code.facts["axis"] == "columns":
            return code.narrow(start, stop, codes=1, codes_tail=1, scale=0)
        part = code.narrow(start, stop, scale=0)
        d, whole = int(code.facts["d"]), _cut_of(code).blocks
        first, last = start // d, min(stop // d, whole)
        kept = {name: value for name, value in part.parts.items() if name == "scale"}
        if last > first:
            kept["codes"] = part.parts["codes"].narrow(0, first, last)
            book = code.require_floats("codebook", (-1, -1, d))
            shared = book.stored.shape[0] == 1
            kept["codebook"] = book if shared else book.narrow(0, first, last)
        if stop > whole * d:
            kept |= {name: code.parts[name] for name in ("codes_tail", "codebook_tail")}
        return replace(part, parts=kept)

    def multiply(self, code: Code, params: Mapping[str, Tensor], x: Tensor) -> Tensor | None:
        """Add up products with centroids; only where columns are cut."""
        if code.facts["axis"] != "columns":
            return None
        out = multiply_blocks(code, params, x, _cut_of(code))
        return scale_product(out, params.get("scale"))

    def multiply_by_columns(
        self, code: Code, params: Mapping[str, Tensor], panels: Panels
    ) -> Tensor | None:
        """Read the centroids of codes where they lie."""
        by_columns = code.facts["axis"] == "columns"
        multiply = multiply_blocks_by_columns if by_columns else multiply_row_blocks_by_columns
        return multiply(code, params, panels, _cut_of(code))

    def packing_axis(self, code: Code) -> int:
        """Across blocks, whose products are added, where columns are cut."""
        return 0 if code.facts["axis"] == "columns" else -1

    def reassign(
        self,
        code: Code,
        params: Mapping[str, Tensor],
        gradient: Tensor,
        curvature: Tensor,
        share: float,
    ) -> Code | None:
        """Move the sub-vectors that promise most to other centroids."""
        shape, axis = _cut_of(code), _axis_of(code)
        slopes, bends = (
            block_points(matrix, shape.d, axis, "block")
            for matrix in in_units_of(params.get("scale"), gradient, curvature)
        )
        names = ["codes" + suffix for suffix in shape.suffixes]
        books = [params["codebook" + suffix] for suffix in shape.suffixes]
        moves = [
            best_moves(code.indices(name), book, slope, bend)
            for name, book, slope, bend in zip(names, books, slopes, bends, strict=True)
        ]
        moved = largest_moves(moves, share)
        if moved is None:
            return None
        parts = {
            name: Indices(codes, book.shape[1])
            for name, codes, book in zip(names, moved, books, strict=True)
        }
        return replace(code, parts={**code.parts, **parts})

    def fit(
        self, m: int, n: int, options: ProductQuantizationOptions, note: Callable[[str], None]
    ) -> ProductQuantizationOptions:
        """Limit d to the length of the axis, and k to the number of sub-vectors."""
        length = n if options.axis == "columns" else m
        if options.d > length:
            note(f"d={options.d} is more than the {length} {options.axis}: d={length}")
            options = options.model_copy(update={"d": length})
        points = points_per_codebook(m, n, options.d, options.axis, options.codebook)
        if options.k > points:
            note(f"k={options.k} is more than the {points} sub-vectors: k={points}")
            options = options.model_copy(update={"k": points})
        shape = cut(m, n, options.d, options.axis)
        if shape.tail and options.k > shape.points:
            note(
                f"the last {shape.tail} {options.axis} have only {shape.points} sub-vectors: "
                f"k={shape.points} for them"
            )
        return options

    def candidates(self, m: int, n: int) -> Iterable[ProductQuantizationOptions]:
        """Sub-vector lengths up to 16 and up to 4096 centroids, with both scopes and scales."""
        for d in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16):
            for bits in range(1, 13):
                for scale, scope in product(get_args(Scale), get_args(CodebookScope)):
                    yield ProductQuantizationOptions(d=d, k=2**bits, codebook=scope, scale=scale)

    def layout(self, m: int, n: int, options: ProductQuantizationOptions) -> Code:
        """Codes and codebooks of the whole blocks and of the tail, and a scale for each row."""
        shape = cut(m, n, options.d, options.axis)
        groups = codebook_groups(shape, options.k, options.codebook)
        parts: dict[str, Indices | Floats] = {}
        for group, suffix in zip(groups, shape.suffixes, strict=True):
            blocks = group.count // shape.points
            parts["codes" + suffix] = Indices.layout(group.k, blocks, shape.points)
            parts["codebook" + suffix] = Floats.layout(options.dtype, group.books, group.k, group.d)
        facts = {"d": options.d, "axis": options.axis}
        return Code((m, n), parts | scale_layout(m, options.scale), facts)

    def expected_error(self, m: int, n: int, options: ProductQuantizationOptions) -> float:
        """The error for Gaussian weights."""
        gain = ROW_SCALE_GAIN if options.scale == "row" else 1.0
        return gain * gaussian_distortion(options.d, math.log2(options.k))

    def paper_bits(self, m: int, n: int, options: ProductQuantizationOptions) -> float:
        """32·k·n + m·s·log2 k, with m·s sub-vectors; 32·k·d with one codebook for the layer."""
        shape = cut(m, n, options.d, options.axis)
        groups = codebook_groups(shape, options.k, options.codebook)
        return sum(group.paper_bits for group in groups)


def _axis_of(code: Code) -> Axis:
    return "rows" if code.facts["axis"] == "rows" else "columns"


def _cut_of(code: Code) -> Cut:
    axis = _axis_of(code)
    return cut(*code.shape, int(code.facts["d"]), axis)


def _cluster(
    weight: Tensor, shape: Cut, options: ProductQuantizationOptions, context: LayerContext
) -> Iterator[tuple[str, Tensor, Floats]]:
    """Yield suffix, codes (blocks, points) and stored codebook of the whole blocks and the tail."""
    sizes = row_sizes(weight, options.scale)
    groups = block_points(weight, options.d, options.axis, options.codebook, sizes)
    for points, suffix in zip(groups, shape.suffixes, strict=True):
        k = min(options.k, points.shape[2])
        centroids = train_codebooks(points, k, seed=context.seed, progress=context.progress)
        codebook = Floats.of(centroids, options.dtype)
        yield suffix, assign(points, codebook.values).reshape(-1, shape.points), codebook


def _feed_back(
    weight: Tensor, shape: Cut, options: ProductQuantizationOptions, context: LayerContext
) -> Iterator[tuple[str, Tensor, Floats]]:
    """`_cluster` with error feedback, and codebooks that fit the codes."""
    assert context.second_order is not None
    feed_back = feed_back_columns if options.axis == "columns" else feed_back_rows
    sizes = row_sizes(weight, options.scale)
    clusters = feed_back(
        weight,
        shape,
        sizes,
        options.k,
        options.codebook,
        options.dtype,
        context.second_order,
        context.seed,
        context.progress,
    )
    return refitted(clusters, weight, options.axis, sizes, options.dtype, context.second_order)

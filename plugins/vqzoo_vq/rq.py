"""rq: residual quantization."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Literal, get_args

import torch
from pydantic import Field
from torch import Tensor

from vqzoo.numerics.arrays import empty, excess_exponent, peak_exponent, times_power
from vqzoo.numerics.clustering.residual import residual_kmeans
from vqzoo.numerics.decoding.decode import decode_residual
from vqzoo.numerics.decoding.lookup import look_up
from vqzoo.numerics.decoding.panel_product import Panels
from vqzoo.plugin import Code, Floats, Indices, LayerContext, Options, Quantizer
from vqzoo.plugin.formats.packed_indices import held_blocks
from vqzoo.plugin.limits import MAX_CARDINALITY
from vqzoo_vq.block_products import multiply_blocks, multiply_blocks_by_columns
from vqzoo_vq.blocks import (
    CodebookScope,
    Cut,
    block_points,
    codebook_groups,
    cut,
    points_per_codebook,
)
from vqzoo_vq.by_answers import best_row_scales
from vqzoo_vq.distortion import ROW_SCALE_GAIN, gaussian_distortion
from vqzoo_vq.moves import Moves, best_moves, in_units_of, largest_moves
from vqzoo_vq.refit import refitted
from vqzoo_vq.row_scale import (
    Scale,
    check_row_scale,
    fit_row_scale,
    row_sizes,
    scale_layout,
    scale_product,
    scale_rows,
)
from vqzoo_vq.rq_feedback import feed_back_residuals


class ResidualQuantizationOptions(Options):
    """Options of rq."""

    stages: int = Field(2, ge=1, le=16, description="number of codebooks, applied in turn")
    k: int = Field(256, ge=1, le=MAX_CARDINALITY, description="centroids of a codebook")
    d: int = Field(8, ge=0, description="sub-vector length; 0 for whole rows, as in the paper")
    codebook: CodebookScope = Field(
        "layer", description="codebooks for the layer, or for each block"
    )
    scale: Scale = Field("row", description="an fp16 scale for each row, or none as in the paper")
    dtype: Literal["float16", "float32"] = Field("float16", description="codebook storage")


class ResidualQuantization(Quantizer):
    """Each sub-vector becomes a sum of centroids, one from the codebook of each stage."""

    name = "rq"
    multiply_devices = ("cpu", "cuda")
    summary = "residual quantization: sums of centroids from several codebooks"
    source = (
        "Gong et al. 2014, arXiv 1412.6115, section 3.2.3; "
        "beam search: Babenko & Lempitsky 2014, additive quantization"
    )
    Options = ResidualQuantizationOptions
    ladder = ({"d": 4, "k": 16, "stages": 1}, {"d": 4, "k": 16}, {"d": 4, "k": 16, "stages": 3})
    second_order = True

    def quantize(
        self, weight: Tensor, options: ResidualQuantizationOptions, context: LayerContext
    ) -> Code:
        """Cluster the sub-vectors, then their residuals, stage by stage."""
        if exponent := excess_exponent(weight):
            usual = times_power(weight, -exponent)
            return self.quantize(usual, options, context).times_power(exponent, "scale", "codebook")
        m, n = weight.shape
        d = options.d or n
        shape = cut(m, n, d, "columns")
        parts: dict[str, Indices | Floats] = {}
        cluster = _cluster if context.second_order is None else _feed_back
        for suffix, codes, codebook in cluster(weight, shape, options, context):
            parts["codes" + suffix] = Indices(codes, codebook.stored.shape[2])
            parts["codebook" + suffix] = codebook
        code = Code((m, n), parts, {"d": d})
        if options.scale == "none":
            return code
        decoded = self.decode(code, code.floats())
        if context.second_order is None:
            scale = fit_row_scale(weight, decoded)
        else:
            scale = Floats.scales(best_row_scales(weight, decoded, context.second_order))
        return Code((m, n), {**parts, "scale": scale}, {"d": d})

    def check(self, code: Code) -> None:
        """Require a code for each stage and sub-vector, and the codebooks of all stages."""
        code.require_fact("d", 1, code.shape[1])
        shape = _cut_of(code)
        for suffix, (blocks, d) in zip(shape.suffixes, shape.widths, strict=True):
            codes = code.require_indices("codes" + suffix, (blocks, -1, shape.points))
            stages, k = codes.values.shape[1], codes.cardinality
            code.require_floats("codebook" + suffix, (1, stages, k, d), (blocks, stages, k, d))
            if not stages:
                raise ValueError("the code has no stages")
        check_row_scale(code)

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        """Look up the centroids of every stage, and add them."""
        shape = _cut_of(code)
        blocks = [
            look_up(code.indices("codes" + suffix), params["codebook" + suffix])
            for suffix in shape.suffixes
        ]
        return scale_rows(torch.cat(blocks, dim=1), params.get("scale"))

    def decode(self, code: Code, params: Mapping[str, Tensor], out: Tensor | None = None) -> Tensor:
        """Look up and add the centroids, in parallel, and write the sums straight to `out`."""
        shape = _cut_of(code)
        if out is None:
            device = params["codebook" + shape.suffixes[0]].device
            out = empty(code.shape, torch.float32, device)
        start = 0
        for suffix, (blocks, d) in zip(shape.suffixes, shape.widths, strict=True):
            target = out[:, start : start + blocks * d]
            part = code.index_part("codes" + suffix)
            codes, width = held_blocks(part, out.device)
            decode_residual(codes, params["codebook" + suffix], target, width)
            start += blocks * d
        return scale_rows(out, params.get("scale"))

    def multiply(self, code: Code, params: Mapping[str, Tensor], x: Tensor) -> Tensor | None:
        """Add up products with the centroids of every stage."""
        out = multiply_blocks(code, params, x, _cut_of(code))
        return scale_product(out, params.get("scale"))

    def multiply_by_columns(
        self, code: Code, params: Mapping[str, Tensor], panels: Panels
    ) -> Tensor | None:
        """Read the centroids of codes where they lie."""
        return multiply_blocks_by_columns(code, params, panels, _cut_of(code))

    def packing_axis(self, code: Code) -> int:
        """Across blocks, whose products are added."""
        return 0

    def row_step(self, code: Code) -> int:
        """Any row."""
        return 1

    def rows(self, code: Code, start: int, stop: int) -> Code:
        """Its codes and scale."""
        return code.narrow(start, stop, codes=2, codes_tail=2, scale=0)

    def reassign(
        self,
        code: Code,
        params: Mapping[str, Tensor],
        gradient: Tensor,
        curvature: Tensor,
        share: float,
    ) -> Code | None:
        """Move the sub-vectors that promise most, each in the stage where it promises most."""
        shape = _cut_of(code)
        slopes, bends = (
            block_points(matrix, shape.d, "columns", "block")
            for matrix in in_units_of(params.get("scale"), gradient, curvature)
        )
        names = ["codes" + suffix for suffix in shape.suffixes]
        books = [params["codebook" + suffix] for suffix in shape.suffixes]
        moves = []
        for name, book, slope, bend in zip(names, books, slopes, bends, strict=True):
            codes = code.indices(name)
            stages = [
                best_moves(codes[:, stage].contiguous(), book[:, stage], slope, bend)
                for stage in range(codes.shape[1])
            ]
            gain = torch.stack([stage.gain for stage in stages], 1)
            best = gain == gain.amax(1, keepdim=True)  # a sub-vector moves in one stage alone
            moved = torch.stack([stage.moved for stage in stages], 1)
            moves.append(Moves(codes, moved, gain * best))
        moved_codes = largest_moves(moves, share)
        if moved_codes is None:
            return None
        parts = {
            name: Indices(codes, book.shape[2])
            for name, codes, book in zip(names, moved_codes, books, strict=True)
        }
        return replace(code, parts={**code.parts, **parts})

    def fit(
        self, m: int, n: int, options: ResidualQuantizationOptions, note: Callable[[str], None]
    ) -> ResidualQuantizationOptions:
        """Limit d to the number of columns, and k to the number of sub-vectors."""
        if options.d > n:
            note(f"d={options.d} is more than the {n} columns: d={n}")
            options = options.model_copy(update={"d": n})
        points = points_per_codebook(m, n, options.d or n, "columns", options.codebook)
        if options.k > points:
            note(f"k={options.k} is more than the {points} sub-vectors: k={points}")
            options = options.model_copy(update={"k": points})
        shape = cut(m, n, options.d or n, "columns")
        if shape.tail and options.k > m:
            note(f"the last {shape.tail} columns have only {m} sub-vectors: k={m} for them")
        return options

    def candidates(self, m: int, n: int) -> Iterable[ResidualQuantizationOptions]:
        """Two to four stages of 4 to 1024 centroids."""
        for stages in (2, 3, 4):
            for d in (2, 4, 6, 8, 10, 12, 16):
                for bits in range(2, 11):
                    for scale in get_args(Scale):
                        yield ResidualQuantizationOptions(
                            stages=stages, d=d, k=2**bits, scale=scale
                        )

    def layout(self, m: int, n: int, options: ResidualQuantizationOptions) -> Code:
        """Codes and codebooks of the whole blocks and of the tail, and a scale for each row."""
        shape = cut(m, n, options.d or n, "columns")
        groups = codebook_groups(shape, options.k, options.codebook)
        parts: dict[str, Indices | Floats] = {}
        for group, suffix in zip(groups, shape.suffixes, strict=True):
            blocks = group.count // shape.points
            parts["codes" + suffix] = Indices.layout(group.k, blocks, options.stages, m)
            parts["codebook" + suffix] = Floats.layout(
                options.dtype, group.books, options.stages, group.k, group.d
            )
        facts = {"d": options.d or n}
        return Code((m, n), parts | scale_layout(m, options.scale), facts)

    def expected_error(self, m: int, n: int, options: ResidualQuantizationOptions) -> float:
        """The error for Gaussian weights and residuals."""
        stage = gaussian_distortion(options.d or n, math.log2(options.k))
        gain = ROW_SCALE_GAIN if options.scale == "row" else 1.0
        return gain * stage**options.stages

    def paper_bits(self, m: int, n: int, options: ResidualQuantizationOptions) -> float:
        """t·(32·k·n + m·log2 k) for whole rows; likewise for sub-vectors of a block or layer."""
        shape = cut(m, n, options.d or n, "columns")
        groups = codebook_groups(shape, options.k, options.codebook)
        return options.stages * sum(group.paper_bits for group in groups)


def _cluster(
    weight: Tensor, shape: Cut, options: ResidualQuantizationOptions, context: LayerContext
) -> Iterator[tuple[str, Tensor, Floats]]:
    """Yield suffix, codes (blocks, stages, m) and stored codebooks of the whole blocks and the
    tail."""
    m = len(weight)
    groups = block_points(
        weight, shape.d, "columns", options.codebook, row_sizes(weight, options.scale)
    )
    for suffix in shape.suffixes:
        points = groups.pop(0)  # as large as the weight, so released as soon as possible
        exponent = _excess_exponent(points)
        if exponent:
            points.mul_(2.0**-exponent)
        clusters = residual_kmeans(
            points,
            min(options.k, points.shape[2]),
            options.stages,
            seed=context.seed,
            progress=context.progress,
        )
        del points
        by_block = clusters.codes.unflatten(2, (-1, m)).transpose(1, 2)
        codes = by_block.reshape(-1, options.stages, m).contiguous()
        codebooks = clusters.codebooks * 2.0**exponent if exponent else clusters.codebooks
        del clusters, by_block
        yield suffix, codes, Floats.of(codebooks, options.dtype)


def _feed_back(
    weight: Tensor, shape: Cut, options: ResidualQuantizationOptions, context: LayerContext
) -> Iterator[tuple[str, Tensor, Floats]]:
    """`_cluster` with error feedback, and codebooks that fit the codes."""
    assert context.second_order is not None
    sizes = row_sizes(weight, options.scale)
    clusters = feed_back_residuals(
        weight,
        shape,
        sizes,
        options.stages,
        options.k,
        options.codebook,
        options.dtype,
        context.second_order,
        context.seed,
        context.progress,
    )
    return refitted(clusters, weight, "columns", sizes, options.dtype, context.second_order)


def _excess_exponent(points: Tensor) -> int:
    """The exponent of the largest weight if products of two weights could leave float32, else 0."""
    exponent = peak_exponent(points)
    return exponent if abs(exponent) > 32 else 0


def _cut_of(code: Code) -> Cut:
    return cut(*code.shape, int(code.facts["d"]), "columns")

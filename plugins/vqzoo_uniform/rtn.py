"""rtn: round to the nearest point of a uniform grid, or to half precision."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from vqzoo.numerics.arrays import excess_exponent, row_chunks, times_power
from vqzoo.numerics.decoding.panel_product import Panels
from vqzoo.numerics.feedback.layer import feedback_of
from vqzoo.numerics.feedback.levels import Levels, feed_back_levels
from vqzoo.numerics.kernels.lines import LINE
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
    PackedIndices,
    decode_table,
    multiply_table,
    multiply_table_by_columns,
)

_GROUP = 128
_ROUNDED = "products"  # the fact that names the dtype to which they are rounded
_HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
_VERSIONS = {"float16": "2", "bfloat16": "3"}

Format = Literal["fp16", "int8", "int7", "int6", "int5", "int4", "int3", "int2"]


class RoundToNearestOptions(Options):
    """Options of rtn."""

    format: Format = Field("int8", description="fp16, or a symmetric integer grid of 2 to 8 bits")
    per: Literal["tensor", "row", "group"] = Field(
        "row", description="the weights that share a scale: all, a row, or a group within a row"
    )
    group: int | None = Field(
        None, ge=1, description="weights of a group, with per=group (128 if not given)"
    )


class RoundToNearest(Quantizer):
    """W ≈ s · q with integers |q| <= 2^(b-1) - 1 and s = max |w| / (2^(b-1) - 1).

    Imported codes of libraries that multiply in half precision round s · q: to float16 in version
    2, to bfloat16 in version 3.
    """

    name = "rtn"
    version = "3"
    earlier: ClassVar[tuple[str, ...]] = ("1", "2")
    multiply_devices = ("cpu", "cuda")
    summary = "round to nearest: fp16, or int8..int2 with a scale per tensor, row or group"
    source = "Jacob et al. 2018, arXiv 1712.05877, section 2.1 (symmetric, zero point 0)"
    Options = RoundToNearestOptions
    ladder = tuple({"format": name} for name in ("int2", "int4", "int8", "fp16"))
    second_order = True

    def quantize(
        self, weight: Tensor, options: RoundToNearestOptions, context: LayerContext
    ) -> Code:
        """Round the scales to fp16 first, then the weights to multiples of the rounded scales."""
        if exponent := excess_exponent(weight):
            usual = times_power(weight, -exponent)
            return self.quantize(usual, options, context).times_power(exponent, "scale", "values")
        shape = (weight.shape[0], weight.shape[1])
        if options.format == "fp16":
            return Code(shape, {"values": Floats.of(weight)})
        top = _top(options.format)
        width = _group_width(*shape, options)
        peaks = torch.cat(
            [_peaks(torch.abs(rows, out=buffer), width) for rows, buffer in row_chunks(weight)]
        )
        peaks = peaks.amax().reshape(1, 1) if options.per == "tensor" else peaks
        scale = Floats.scales(peaks / top)
        if context.second_order is not None:
            codes = _fed_back(weight, scale.values, width, top, context.second_order)
            return Code(
                shape, {"codes": Indices(codes, 2 * top + 1), "scale": scale}, {"group": width}
            )
        codes = torch.empty(shape, dtype=torch.uint8, device=weight.device)
        steps = scale.values.expand(shape[0], -1)
        steps, start = steps.where(steps > 0, 1.0), 0
        for rows, buffer in row_chunks(weight):
            stop = start + len(rows)
            buffer.copy_(rows)
            for group, step in _groups(buffer, steps[start:stop], width):
                group.div_(step)
            codes[start:stop] = buffer.round_().clamp_(-top, top).add_(top)
            start = stop
        parts: dict[str, Indices | Floats] = {
            "codes": Indices(codes, 2 * top + 1),
            "scale": scale,
        }
        return Code(shape, parts, {"group": width})

    def check(self, code: Code) -> None:
        """Require half-precision values; or an integer for each weight, and scales of groups."""
        m, n = code.shape
        if "values" in code.parts:
            code.require_floats("values", code.shape)
            return
        groups = -(-n // code.require_fact("group", 1, n))
        code.require_indices("codes", code.shape)
        code.require_floats("scale", (1, groups), (m, groups))
        if code.facts.get(_ROUNDED, "float16") not in _HALVES:
            raise ValueError(
                f"fact {_ROUNDED!r} is {code.facts[_ROUNDED]!r:.40}, no half precision"
            )

    def version_of(self, code: Code) -> str:
        """1 unless products are rounded."""
        return _VERSIONS[str(code.facts[_ROUNDED])] if _ROUNDED in code.facts else "1"

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        """Multiply the integers by their scales."""
        if "values" in params:
            return params["values"]
        codes = code.index_part("codes")
        integers = codes.values.to(torch.float32) - codes.cardinality // 2
        products = integers * _spread(params["scale"], code.shape, int(code.facts["group"]))
        if _ROUNDED not in code.facts:
            return products
        rounded = products.to(_half(code)).float()
        return products + (rounded - products).detach()  # exact, by Sterbenz

    def decode(self, code: Code, params: Mapping[str, Tensor], out: Tensor | None = None) -> Tensor:
        """Multiply the integers by their scales, in place."""
        if "values" in params:
            values = params["values"].detach()
            return values if out is None else out.copy_(values)
        codes, scale = code.index_part("codes"), params["scale"].detach()
        out = torch.empty(code.shape, device=scale.device) if out is None else out
        if isinstance(codes, PackedIndices):
            decode_table(codes, _integers(codes).to(out.device), out)
        else:
            out.copy_(codes.values).sub_(codes.cardinality // 2)
        for group, step in _groups(out, scale, int(code.facts["group"])):
            group.mul_(step)
        if _ROUNDED in code.facts:
            out.copy_(out.to(_half(code)))
        return out

    def multiply(self, code: Code, params: Mapping[str, Tensor], x: Tensor) -> Tensor | None:
        """Multiply by the integers, then by the scale of each row."""
        codes = code.parts.get("codes")
        if not isinstance(codes, Indices) or params["scale"].shape[1] > 1 or _ROUNDED in code.facts:
            return None
        product = multiply_table(codes, _integers(codes), x, codes.cardinality // 2)
        return None if product is None else product.mul_(params["scale"].detach()[:, 0])

    def multiply_by_columns(
        self, code: Code, params: Mapping[str, Tensor], panels: Panels
    ) -> Tensor | None:
        """Multiply by the integers times their scales, if groups of them fill lines."""
        codes, scale = code.parts.get("codes"), params.get("scale")
        if not isinstance(codes, Indices) or scale is None or _ROUNDED in code.facts:
            return None
        group = int(code.facts["group"]) if scale.shape[1] > 1 else 0
        if group % LINE:
            return None
        scale = scale.expand(code.shape[0], -1)
        zero, integers = codes.cardinality // 2, _integers(codes)
        return multiply_table_by_columns(codes, integers, panels, zero, scale, group)

    def row_step(self, code: Code) -> int:
        """Any row."""
        return 1

    def rows(self, code: Code, start: int, stop: int) -> Code:
        """Its values, or its integers and, if rows have them, scales."""
        scale = code.parts.get("scale")
        by_row = isinstance(scale, Floats) and scale.stored.shape[0] > 1
        axes = {"scale": 0} if by_row else {}
        return code.narrow(start, stop, codes=0, values=0, **axes)

    def form(self, code: Code) -> LookUp | None:
        """A table of integers; none for half-precision values and rounded products."""
        codes = code.parts.get("codes")
        if not isinstance(codes, Indices) or _ROUNDED in code.facts:
            return None
        integers = _integers(codes)
        scale, group = code.floats()["scale"], int(code.facts["group"])
        return LookUp(codes.values, integers.reshape(1, -1, 1), scale=scale, group=group)

    def fit(
        self, m: int, n: int, options: RoundToNearestOptions, note: Callable[[str], None]
    ) -> RoundToNearestOptions:
        """Limit a group to a row."""
        if options.group is not None and options.per != "group":
            note(f"group={options.group} has no effect with per={options.per}")
        elif options.group is not None and options.group > n:
            note(f"group={options.group} is more than the {n} columns: group={n}")
            options = options.model_copy(update={"group": n})
        return options

    def candidates(self, m: int, n: int) -> Iterable[RoundToNearestOptions]:
        """Every format with every scope of scales."""
        yield RoundToNearestOptions(format="fp16")
        for name in ("int8", "int7", "int6", "int5", "int4", "int3", "int2"):
            for per in ("tensor", "row", "group"):
                yield RoundToNearestOptions.model_validate({"format": name, "per": per})

    def layout(self, m: int, n: int, options: RoundToNearestOptions) -> Code:
        """Half-precision values; or an integer for each weight, and scales."""
        if options.format == "fp16":
            return Code((m, n), {"values": Floats.layout("float16", m, n)})
        width = _group_width(m, n, options)
        scales = (1, 1) if options.per == "tensor" else (m, math.ceil(n / width))
        parts: dict[str, Indices | Floats] = {
            "codes": Indices.layout(2 * _top(options.format) + 1, m, n),
            "scale": Floats.layout("float16", *scales),
        }
        return Code((m, n), parts, {"group": width})

    def expected_error(self, m: int, n: int, options: RoundToNearestOptions) -> float:
        """step² / 12 for Gaussian weights, the largest of N of which is about sqrt(2 ln N)."""
        if options.format == "fp16":
            return 2.0**-24
        count = m * n if options.per == "tensor" else _group_width(m, n, options)
        peak_squared = 2 * math.log(max(count, 2))
        return min(1.0, peak_squared / (12 * _top(options.format) ** 2))

    def paper_bits(self, m: int, n: int, options: RoundToNearestOptions) -> float:
        """b bits for each weight and 32 for each scale."""
        if options.format == "fp16":
            return 16 * m * n
        width = _group_width(m, n, options)
        scales = 1 if options.per == "tensor" else m * math.ceil(n / width)
        return m * n * _bits(options.format) + 32 * scales


def _fed_back(
    weight: Tensor, scale: Tensor, width: int, top: int, second_order: SecondOrder
) -> Tensor:
    """The codes (m, n) of integers around `top`, chosen column by column with error feedback."""
    m, n = weight.shape
    integers = torch.arange(-top, top + 1, device=weight.device, dtype=torch.float32)
    step_of = torch.arange(n, device=weight.device) // width
    levels = Levels(integers, scale.expand(m, -1), step_of)
    return feed_back_levels(weight, feedback_of(second_order.hessian), levels).codes


def _integers(codes: Indices) -> Tensor:
    """The integers that codes stand for."""
    return torch.arange(codes.cardinality, dtype=torch.float32) - codes.cardinality // 2


def _half(code: Code) -> torch.dtype:
    """The dtype to which products are rounded."""
    return _HALVES[str(code.facts[_ROUNDED])]


def _bits(name: Format) -> int:
    return int(name.removeprefix("int"))


def _top(name: Format) -> int:
    return 2 ** (_bits(name) - 1) - 1


def _group_width(m: int, n: int, options: RoundToNearestOptions) -> int:
    """The number of weights along a row that share a scale."""
    return min(options.group or _GROUP, n) if options.per == "group" else n


def _groups(matrix: Tensor, scale: Tensor, width: int) -> list[tuple[Tensor, Tensor]]:
    """Views of the whole groups (m, groups, width) and of a shorter last group (m, 1, n % width),
    each with its scales (m or 1, groups, 1)."""
    whole = matrix.shape[1] // width
    body, tail = matrix[:, : whole * width], matrix[:, whole * width :]
    groups = [(body.unflatten(1, (whole, width)), scale[:, :whole, None])]
    return groups + ([(tail[:, None], scale[:, whole:, None])] if tail.shape[1] else [])


def _peaks(magnitudes: Tensor, width: int) -> Tensor:
    """(m, groups): the largest magnitude of each group."""
    m, n = magnitudes.shape
    groups = _groups(magnitudes, magnitudes.new_empty(m, -(-n // width)), width)
    return torch.cat([group.amax(dim=2) for group, _ in groups], dim=1)


def _spread(scale: Tensor, shape: tuple[int, int], width: int) -> Tensor:
    """Scales (m or 1, groups) repeated for the columns, (m or 1, n)."""
    return scale.repeat_interleave(width, dim=1)[:, : shape[1]]

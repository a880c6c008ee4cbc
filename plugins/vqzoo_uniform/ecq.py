"""ecq: an entropy-constrained uniform grid with error feedback, plain or through a trellis."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from vqzoo.numerics.arrays import as_float32
from vqzoo.numerics.coding import ans
from vqzoo.numerics.coding.context import stream as contexts
from vqzoo.numerics.decoding.column_products import multiply_walks
from vqzoo.numerics.decoding.input_products import multiply_walk
from vqzoo.numerics.decoding.panel_product import Panels
from vqzoo.numerics.feedback.elimination import Elimination, eliminate
from vqzoo.numerics.feedback.grid import Grid, feed_back_grid, levels
from vqzoo.numerics.feedback.layer import DAMPING, ROW_FLOOR, feedback_loss
from vqzoo.numerics.feedback.rates import Rates, laplacian, observed
from vqzoo.numerics.kernels.feedback.trellis import SEGMENT
from vqzoo.plugin import Code, Floats, Indices, LayerContext, Options, Quantizer
from vqzoo.plugin.formats.packed_indices import (
    held_codes,
    multiply_table,
    multiply_table_by_columns,
)
from vqzoo.plugin.second_order import assumed_row_weight, known_or_assumed
from vqzoo_uniform.cosine import (
    coding_gain,
    cosine_basis,
    kernel_sides,
    kernel_text,
    read_kernel,
    transformed,
    transformed_back,
    transformed_statistics,
)
from vqzoo_uniform.steps import RANGE, choose_steps, powers, row_factors

_BLOCK = 64  # columns quantized together where nothing is known about them
_TRELLIS_SHARE = 0.75  # of the best step of a plain grid; levels in reach lie twice as densely
_SHRUNK_SHARE = 0.9  # the same for shrunk weights, of which fewer codes differ from 0
_GROWTH = 1.05  # of weights by error feedback, before codes are clamped
_MAX_RIDGE = 1e3  # of the mean diagonal of H: hardly a weight is left long before
_MAX_REACH = (1 << 15) - 1
_LARGEST = 3.4e38  # float32
_TRIED_COLUMNS = 512  # of a matrix that is quantized both ways; factoring H takes n³ steps


class EntropyConstrainedOptions(Options):
    """Options of ecq."""

    price: float = Field(
        2e-6,
        gt=1e-30,
        le=1e30,
        description="lambda, what a bit is worth in squared logits: more makes files smaller",
    )
    trellis: bool = Field(
        True, description="quantize columns by the best walk through a trellis of eight states"
    )
    transform: Literal["auto", "cosine", "none"] = Field(
        "auto",
        description="of the kernels of convolutions: their cosine transform, none, or the cheaper",
    )
    damping: float = Field(
        DAMPING,
        gt=0,
        le=100,
        description="added to the diagonal of the inputs' second moment, as a share of its mean",
    )


@dataclass(frozen=True)
class _Metric:
    """What errors cost.

    Attributes:
        eliminations: of consecutive blocks of columns.
        row_weights: g, (m,) float64, positive.
    """

    eliminations: list[Elimination]
    row_weights: NDArray[np.float64]

    @property
    def columns(self) -> NDArray[np.float64]:
        """D - ρ in the matrix's order of columns, (groups, n) float64."""
        blocks = [part.free_metric[:, part.place] for part in self.eliminations]
        return np.asarray(torch.cat(blocks, 1).numpy())

    @property
    def parts(self) -> list[slice]:
        """The columns of each block."""
        stops = np.cumsum([len(part.order) for part in self.eliminations]).tolist()
        return [slice(start, stop) for start, stop in pairwise([0, *stops])]

    def shrunk(self, matrix: Tensor) -> Tensor:
        """A matrix (m, n) as feedback begins with it, block by block."""
        blocks = zip(self.eliminations, self.parts, strict=True)
        return torch.cat([one.shrunk(matrix[:, part]) for one, part in blocks], 1)


class EntropyConstrained(Quantizer):
    """W_ij ≈ level(codes)_ij · step · 2^((row_i + column_j) / 2), of weights or of kernels'
    transforms."""

    name = "ecq"
    version = "2"
    earlier: ClassVar[tuple[str, ...]] = ("1",)
    summary = "entropy-constrained grid: error against bits at one price, error feedback, trellis"
    source = (
        "Chou et al. 1989 (ECVQ); Frantar et al. 2022, arXiv 2210.17323; ISO/IEC 15938-17 (trellis)"
    )
    packing = "context"
    second_order = True
    price_option = "price"
    Options = EntropyConstrainedOptions
    ladder = tuple({"price": price} for price in (0.3, 0.01, 1e-4, 2e-6))

    def quantize(
        self, weight: Tensor, options: EntropyConstrainedOptions, context: LayerContext
    ) -> Code:
        """The cheaper of a matrix and its kernels' transforms, in loss and bits at the price."""
        sides = _sides(weight, options, context)
        if sides is None:
            return _quantize(weight, options, context)
        basis = cosine_basis(sides)
        kernels = transformed(weight.detach(), basis)
        if not bool(torch.isfinite(kernels).all()):
            return _quantize(weight, options, context)
        known = context.second_order
        if known is not None:
            known = transformed_statistics(known, basis)
        code = _quantize(kernels, options, replace(context, second_order=known))
        code = replace(code, facts={**code.facts, "kernel": kernel_text(sides)})
        if options.transform == "cosine" or weight.shape[1] > _TRIED_COLUMNS:
            return code
        plain = _quantize(weight, options, context)
        costs = [self._cost(one, weight, options, context) for one in (plain, code)]
        return plain if costs[0] <= costs[1] else code

    def _cost(
        self, code: Code, weight: Tensor, options: EntropyConstrainedOptions, context: LayerContext
    ) -> float:
        """Predicted loss + price · bits, packed by `context`."""
        error = weight.detach() - self.decode(code, code.floats())
        metric = known_or_assumed(weight, context.second_order)
        loss = feedback_loss(error, metric.hessian, metric.row_weights) / 2
        codes, steps = code.index_part("codes"), code.index_part("steps")
        streams = (
            contexts.pack(codes.values, codes.cardinality),
            ans.pack(steps.values, steps.cardinality),
        )
        return loss + 8 * options.price * sum(stream.numel() for stream in streams)

    def version_of(self, code: Code) -> str:
        """1 for codes of weights themselves."""
        return "2" if "kernel" in code.facts else "1"

    def check(self, code: Code) -> None:
        """Require a code for each weight, an exponent for each row and column, a step with which
        no weight overflows, and whole kernels where they are transformed."""
        m, n = code.shape
        codes = code.require_indices("codes", (m, n))
        if codes.cardinality % 2 == 0:
            raise ValueError(f"codes below {codes.cardinality} have no middle")
        exponents = code.require_indices("steps", (m + n,))
        if exponents.cardinality > RANGE + 1:
            raise ValueError(f"exponents below {exponents.cardinality} are too large")
        step = float(code.require_floats("step", (1,)).values.abs().max())
        code.require_fact("trellis", 0, 1)
        taps = 1
        if "kernel" in code.facts:
            taps = math.prod(read_kernel(code.facts["kernel"]))
            if n % taps:
                raise ValueError(f"kernels of {taps} taps do not fill {n} columns")
        rows, columns = (int(part.max()) for part in exponents.values.split([m, n]))
        if step * 2.0 ** ((rows + columns) / 2) * codes.cardinality * taps > _LARGEST:
            raise ValueError("the steps are too large: weights would overflow")

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        """Multiply levels by the steps of their row and column, and transform kernels back."""
        rows, columns = _factors(code, params["step"])
        return _weights(code, _levels(code) * rows[:, None] * columns)

    def decode(self, code: Code, params: Mapping[str, Tensor], out: Tensor | None = None) -> Tensor:
        """Multiply levels by the steps of their row and column, and transform kernels back."""
        rows, columns = _factors(code, params["step"].detach())
        matrix = _weights(code, _levels(code).mul_(rows[:, None]).mul_(columns))
        return matrix if out is None else out.copy_(matrix)

    def multiply(self, code: Code, params: Mapping[str, Tensor], x: Tensor) -> Tensor | None:
        """Multiply by the integers of a plain grid, or one input by the levels of a trellis,
        between the steps of columns and of rows."""
        walks = code.facts["trellis"]
        if "kernel" in code.facts or (walks and (len(x) != 1 or x.device.type != "cpu")):
            return None
        codes, integers, zero = _integers(code)
        rows, columns = _factors(code, params["step"].detach())
        if walks:
            return multiply_walk(*held_codes(codes), zero, x[0] * columns, rows)[None]
        product = multiply_table(codes, integers, x * columns, zero)
        return None if product is None else product.mul_(rows)

    def multiply_by_columns(
        self, code: Code, params: Mapping[str, Tensor], panels: Panels
    ) -> Tensor | None:
        """Multiply by the levels, between the steps of columns and of rows; columns are transformed
        instead of kernels."""
        rows, columns = _factors(code, params["step"].detach())
        codes, integers, zero = _integers(code)
        if "kernel" in code.facts:
            panels = panels.mixed(cosine_basis(read_kernel(code.facts["kernel"])), columns)
        elif not code.facts["trellis"]:
            panels = panels.scaled(columns)
        if code.facts["trellis"]:
            factors = None if "kernel" in code.facts else columns
            return multiply_walks(*held_codes(codes), zero, panels, rows, factors)
        return multiply_table_by_columns(codes, integers, panels, zero, rows[:, None])

    def row_step(self, code: Code) -> int:
        """Any row of a plain grid, or the rows of a walk through the trellis."""
        return SEGMENT if code.facts["trellis"] else 1

    def rows(self, code: Code, start: int, stop: int) -> Code:
        """Its codes and exponent, and the exponents of columns."""
        steps = code.index_part("steps")
        rows, columns = steps.values.split(list(code.shape))
        exponents = Indices(torch.cat([rows[start:stop], columns]), steps.cardinality)
        part = code.narrow(start, stop, codes=0)
        return replace(part, parts={**part.parts, "steps": exponents})


def _sides(
    weight: Tensor, options: EntropyConstrainedOptions, context: LayerContext
) -> tuple[int, ...] | None:
    """The sides of kernels that may be transformed; None where the transform is out of question."""
    sides = None if options.transform == "none" else kernel_sides(weight, context)
    large = weight.shape[1] > _TRIED_COLUMNS
    if sides is None or options.transform == "cosine" or not large:
        return sides
    return sides if coding_gain(weight, cosine_basis(sides)) > 0 else None


def _quantize(weight: Tensor, options: EntropyConstrainedOptions, context: LayerContext) -> Code:
    """Choose steps, then codes twice: at guessed rates, and at those of the first codes."""
    m, n = weight.shape
    matrix = weight.detach().cpu()
    metric = _metric(matrix, context, options)
    spacing = 2 if options.trellis else 1
    share = _TRELLIS_SHARE if context.second_order is None else _SHRUNK_SHARE
    steps = choose_steps(
        as_float32(matrix),
        metric.row_weights,
        metric.columns,
        options.price,
        spacing,
        share if options.trellis else 1.0,
    )
    row_steps, column_steps = steps.row_steps, steps.column_steps
    sizes = np.abs(as_float32(matrix)) / row_steps[:, None] / column_steps / spacing
    reach = min(int(float(sizes.max()) * _GROWTH) + 2, _MAX_REACH)
    rates = laplacian(float(sizes.mean()), m, n, reach)
    grid = Grid(row_steps, column_steps, reach, options.trellis)
    shrunk = metric.shrunk(matrix)
    codes = _feed_back(shrunk, metric, grid, options.price, rates)
    reach = int(np.abs(codes).max())
    if reach > 0:
        rates = observed(codes, reach, options.trellis)
        grid = Grid(row_steps, column_steps, reach, options.trellis)
        codes = _feed_back(shrunk, metric, grid, options.price, rates)
        reach = int(np.abs(codes).max())
    exponents = np.concatenate([steps.rows, steps.columns])
    parts: dict[str, Indices | Floats] = {
        "codes": Indices(torch.from_numpy(codes + np.int32(reach)), 2 * reach + 1),
        "steps": Indices(torch.from_numpy(exponents), int(exponents.max()) + 1),
        "step": steps.unit,
    }
    moved = {name: _on(part, weight.device) for name, part in parts.items()}
    return Code((m, n), moved, {"trellis": int(options.trellis)})


def _metric(matrix: Tensor, context: LayerContext, options: EntropyConstrainedOptions) -> _Metric:
    """What calibration says about errors; without it, all weights of a layer count alike, and all
    layers."""
    m, n = matrix.shape
    alike = np.full(m, assumed_row_weight(matrix))
    known = context.second_order
    if known is None:
        widths = [min(_BLOCK, n - start) for start in range(0, n, _BLOCK)]
        plain = {width: eliminate([torch.eye(width)[None]], 0.0) for width in set(widths)}
        return _Metric([plain[width] for width in widths], alike)
    weights = known.row_weights.cpu().double().numpy()
    mean = float(weights.mean())
    if mean == 0:
        context.note("its errors do not change the logits of the calibration images")
    weights = weights + ROW_FLOOR * mean if mean else alike
    eliminations = [
        eliminate([block], options.damping, ridge=_ridge(block, matrix, weights, options.price))
        for block in (block.cpu() for block in known.hessian)
    ]
    return _Metric(eliminations, weights)


def _ridge(block: Tensor, matrix: Tensor, row_weights: NDArray[np.float64], price: float) -> Tensor:
    """ρ = λ / (ln 2 · g · σ²) of each group of rows, (groups,): normal weights of variance σ² take
    q² / (2 ln 2 · σ²) bits, up to a constant."""
    groups = len(block)
    energy = matrix.double().square().view(groups, -1).mean(1)
    sizes = energy * torch.from_numpy(row_weights).view(groups, -1).mean(1)
    most = _MAX_RIDGE * block.diagonal(dim1=1, dim2=2).double().mean(1)
    return torch.minimum(price / math.log(2) / sizes, most)


def _feed_back(
    shrunk: Tensor, metric: _Metric, grid: Grid, price: float, rates: Rates
) -> NDArray[np.int32]:
    """The codes of a matrix, block by block: errors do not cross from one to the next."""
    codes = np.empty(tuple(shrunk.shape), np.int32)
    for elimination, part in zip(metric.eliminations, metric.parts, strict=True):
        codes[:, part] = feed_back_grid(
            shrunk[:, part],
            elimination,
            Grid(grid.row_steps, grid.column_steps[part], grid.reach, grid.trellis),
            metric.row_weights,
            price,
            Rates(rates.bits, rates.row_classes, rates.column_classes[part]),
        )
    return codes


def _on(part: Indices | Floats, device: torch.device) -> Indices | Floats:
    if isinstance(part, Indices):
        return Indices(part.values.to(device), part.cardinality)
    return Floats(part.stored.to(device), part.exponent)


def _levels(code: Code) -> Tensor:
    """The levels of all codes, (m, n) float32, new."""
    codes = code.index_part("codes")
    return levels(codes.values, codes.cardinality // 2, bool(code.facts["trellis"]))


def _weights(code: Code, matrix: Tensor) -> Tensor:
    """The weights of a matrix on the grid: it, or the kernels that it has the transforms of."""
    if "kernel" not in code.facts:
        return matrix
    return transformed_back(matrix, cosine_basis(read_kernel(code.facts["kernel"])))


def _integers(code: Code) -> tuple[Indices, Tensor, int]:
    """The codes, the integers that they stand for, and the code of 0."""
    codes = code.index_part("codes")
    zero = codes.cardinality // 2
    return codes, torch.arange(codes.cardinality, dtype=torch.float32) - zero, zero


def _factors(code: Code, step: Tensor) -> tuple[Tensor, Tensor]:
    """The steps of rows (m,), the unit included, and of columns (n,)."""
    rows, columns = code.indices("steps").split(list(code.shape))
    return row_factors(rows, step), powers(columns)

"""diba: alternating diagonal and binary factors."""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from vqzoo.numerics.arrays import excess_exponent, times_power
from vqzoo.numerics.decoding.panel_product import Panels, as_panels, transposed
from vqzoo.plugin import Code, Floats, Indices, LayerContext, Options, Quantizer
from vqzoo.plugin.formats.packed_indices import (
    columns_of,
    multiply_table,
    multiply_table_by_columns,
)
from vqzoo_diba.solver import solve_diba

_FINE = 512  # candidates for k differ by 1/512
_BITS = torch.tensor([0.0, 1.0])
_TOGETHER = 512  # inputs that are multiplied at a time


class DiagonalBinaryOptions(Options):
    """Options of diba."""

    k: int = Field(256, ge=1, description="inner dimension: columns of B1, rows of B2")
    iterations: int = Field(20, ge=0, le=1000, description="maximum of rounds over all components")
    tolerance: float = Field(
        2e-3,
        ge=0,
        lt=1,
        description="stop when a round lowers the error by less than this fraction",
    )
    dtype: Literal["float16", "float32"] = Field("float16", description="storage of the diagonals")


class DiagonalBinaryFactors(Quantizer):
    """W ≈ D1·B1·D2·B2·D3, with diagonal D and B of zeros and ones."""

    name = "diba"
    summary = "alternating diagonal and binary factors: m + k + n multiplications a vector"
    source = "Ono 2026, arXiv 2605.05994: DiBA-Greedy; with fine-tuning of the diagonals, DiBARD"
    Options = DiagonalBinaryOptions
    ladder = ({"k": 8}, {"k": 24}, {"k": 96})

    def quantize(
        self, weight: Tensor, options: DiagonalBinaryOptions, context: LayerContext
    ) -> Code:
        """Solve by flips and least squares in turn."""
        if exponent := excess_exponent(weight):
            usual = times_power(weight, -exponent)
            return self.quantize(usual, options, context).times_power(exponent, "core")
        factors = solve_diba(
            weight,
            options.k,
            seed=context.seed,
            iterations=options.iterations,
            tolerance=options.tolerance,
            progress=context.progress,
        )
        parts: dict[str, Indices | Floats] = {
            "left": Indices(factors.b1, 2),
            "right": Indices(factors.b2, 2),
        }
        diagonals = {"rows": factors.d1, "core": factors.d2, "columns": factors.d3}
        for name, diagonal in diagonals.items():
            if options.dtype == "float16":
                parts[name] = Floats.scales(diagonal)
            else:
                parts[name] = Floats.of(diagonal, options.dtype)
        return Code((weight.shape[0], weight.shape[1]), parts)

    def check(self, code: Code) -> None:
        """Require two binary factors and three diagonals of matching shapes."""
        m, n = code.shape
        k = code.require_floats("core", (-1,)).stored.numel()
        code.require_floats("rows", (m,))
        code.require_floats("columns", (n,))
        binaries = (code.require_indices("left", (m, k)), code.require_indices("right", (k, n)))
        if any(binary.cardinality != 2 for binary in binaries):
            raise ValueError("a factor is not binary")

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        """The product of the factors."""
        left = params["rows"][:, None] * code.indices("left") * params["core"]
        return left @ (code.indices("right") * params["columns"])

    def decode(self, code: Code, params: Mapping[str, Tensor], out: Tensor | None = None) -> Tensor:
        """The product, some columns at a time: the right factor may be as large as the weight."""
        with torch.no_grad():
            left = params["rows"][:, None] * code.indices("left") * params["core"]
            out = left.new_empty(code.shape) if out is None else out
            for start, bits in columns_of(code.index_part("right")):
                stop = start + bits.shape[1]
                out[:, start:stop] = left @ (bits * params["columns"][start:stop])
        return out

    def multiply(self, code: Code, params: Mapping[str, Tensor], x: Tensor) -> Tensor | None:
        """Multiply by the factors straight from their bits, eight a byte, or by columns."""
        with torch.no_grad():
            product = multiply_table(code.index_part("right"), _BITS, x * params["columns"])
            if product is not None:
                inner = product.mul_(params["core"])
                product = multiply_table(code.index_part("left"), _BITS, inner)
            if product is not None:
                return product.mul_(params["rows"])
            parts = (transposed(part) for part in x.split(_TOGETHER))
            return torch.cat([self.multiply_by_columns(code, params, part).T for part in parts])

    def multiply_by_columns(
        self, code: Code, params: Mapping[str, Tensor], panels: Panels
    ) -> Tensor:
        """Multiply by the factors straight from their bits."""
        right, left = code.index_part("right"), code.index_part("left")
        core, rows = params["core"][:, None], params["rows"][:, None]
        scaled = panels.scaled(params["columns"])
        inner = multiply_table_by_columns(right, _BITS, scaled, scales=core)
        assert inner is not None
        product = multiply_table_by_columns(left, _BITS, as_panels(inner), scales=rows)
        assert product is not None
        return product

    def apply(self, code: Code, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Multiply by the factors: scale, add, scale, add, scale."""
        inner = (x * params["columns"]) @ code.indices("right").T.to(x.dtype)
        return (inner * params["core"]) @ code.indices("left").T.to(x.dtype) * params["rows"]

    def row_step(self, code: Code) -> int:
        """Any row."""
        return 1

    def rows(self, code: Code, start: int, stop: int) -> Code:
        """Its row of the left factor."""
        return code.narrow(start, stop, left=0, rows=0)

    def fit(
        self, m: int, n: int, options: DiagonalBinaryOptions, note: Callable[[str], None]
    ) -> DiagonalBinaryOptions:
        """Limit k so that the binary factors are no larger than the dense weight."""
        largest = _largest_k(m, n)
        if options.k > largest:
            note(f"k={options.k} would take more bits than the dense weight: k={largest}")
            options = options.model_copy(update={"k": largest})
        return options

    def candidates(self, m: int, n: int) -> Iterable[DiagonalBinaryOptions]:
        """Every k up to 512, then steps of 1/512 up to the size of the dense weight."""
        k, largest = 1, _largest_k(m, n)
        while k <= largest:
            yield DiagonalBinaryOptions(k=k)
            k += max(1, k // _FINE)

    def layout(self, m: int, n: int, options: DiagonalBinaryOptions) -> Code:
        """Two binary factors and three diagonals."""
        parts: dict[str, Indices | Floats] = {
            "left": Indices.layout(2, m, options.k),
            "right": Indices.layout(2, options.k, n),
        }
        for name, size in (("rows", m), ("core", options.k), ("columns", n)):
            parts[name] = Floats.layout(options.dtype, size)
        return Code((m, n), parts)

    def expected_error(self, m: int, n: int, options: DiagonalBinaryOptions) -> float:
        """Halved by every two bits a weight, about as measured."""
        error: float = 2 ** (-0.5 * options.k * (m + n) / (m * n))
        return error

    def paper_bits(self, m: int, n: int, options: DiagonalBinaryOptions) -> float:
        """32·(m + k + n) + k·(m + n)."""
        return 32 * (m + options.k + n) + options.k * (m + n)


def _largest_k(m: int, n: int) -> int:
    """The largest k whose binary factors take at most 32 bits a weight, but at least 1."""
    return max(1, 32 * m * n // (m + n))

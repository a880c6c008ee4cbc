"""diba: diagonal and binary factors in turn."""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from pydantic import Field
from torch import Tensor

from vqzoo.plugin import Code, Floats, Indices, LayerContext, Options, Quantizer
from vqzoo_diba.solver import solve_diba

_FINE = 512  # candidates for k differ by a 512th


class DiagonalBinaryOptions(Options):
    """Options of diba."""

    k: int = Field(256, ge=1, description="inner dimension: columns of B1, rows of B2")
    iterations: int = Field(20, ge=0, le=1000, description="rounds over all components, at most")
    tolerance: float = Field(
        2e-3, ge=0, lt=1, description="stop where a round lowers the error by less than this share"
    )
    dtype: Literal["float16", "float32"] = Field("float16", description="storage of the diagonals")


class DiagonalBinaryFactors(Quantizer):
    """W ≈ D1·B1·D2·B2·D3, D diagonal and B of zeros and ones."""

    name = "diba"
    summary = "diagonal and binary factors in turn: m + k + n multiplications a vector"
    source = "Ono 2026, arXiv 2605.05994: DiBA-Greedy; with fine-tuning of the diagonals, DiBARD"
    Options = DiagonalBinaryOptions
    ladder = ({"k": 8}, {"k": 24}, {"k": 96})

    def quantize(
        self, weight: Tensor, options: DiagonalBinaryOptions, context: LayerContext
    ) -> Code:
        """Flips and least squares in turn."""
        found = solve_diba(
            weight,
            options.k,
            seed=context.seed,
            iterations=options.iterations,
            tolerance=options.tolerance,
            progress=context.progress,
        )
        parts: dict[str, Indices | Floats] = {
            "left": Indices(found.b1, 2),
            "right": Indices(found.b2, 2),
        }
        for name, diagonal in (("rows", found.d1), ("core", found.d2), ("columns", found.d3)):
            if options.dtype == "float16":
                parts[name] = Floats.scales(diagonal)
            else:
                parts[name] = Floats.of(diagonal, options.dtype)
        return Code((weight.shape[0], weight.shape[1]), parts)

    def check(self, code: Code) -> None:
        """Two binary factors and three diagonals that go together."""
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

    def apply(self, code: Code, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Through the factors: scale, add up, scale, add up, scale."""
        inner = (x * params["columns"]) @ code.indices("right").T.to(x.dtype)
        return (inner * params["core"]) @ code.indices("left").T.to(x.dtype) * params["rows"]

    def fit(
        self, m: int, n: int, options: DiagonalBinaryOptions, note: Callable[[str], None]
    ) -> DiagonalBinaryOptions:
        """No more components than stay below the dense weight."""
        most = _most(m, n)
        if options.k > most:
            note(f"k={options.k} would store more than the weights: k={most}")
            options = options.model_copy(update={"k": most})
        return options

    def candidates(self, m: int, n: int) -> Iterable[DiagonalBinaryOptions]:
        """Every k up to 512, and steps of a 512th from there to the size of the dense weight."""
        k = 1
        while k <= _most(m, n):
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
        """It falls with the bits a weight: measured, by about half for every two."""
        bits: float = 2 ** (-0.5 * options.k * (m + n) / (m * n))
        return bits

    def paper_bits(self, m: int, n: int, options: DiagonalBinaryOptions) -> float:
        """32·(m + k + n) + k·(m + n)."""
        return 32 * (m + options.k + n) + options.k * (m + n)


def _most(m: int, n: int) -> int:
    """The largest k whose binary factors take no more than 32 bits a weight, at least 1."""
    return max(1, 32 * m * n // (m + n))

"""e8: the method as vqzoo sees it."""

from collections.abc import Iterable, Mapping

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from vqzoo.plugin import Code, Floats, Indices, LayerContext, Options, Quantizer
from vqzoo_e8.grid import CODES, DIMENSION, nearest, points
from vqzoo_e8.rotation import rotate, rotate_back, sign_rows

_DENSITY = 1.03  # factor that brings normal weights of variance 1 to the grid (the authors' figure)
_REFINEMENT = 3.45  # factor that brings the residual of the first stage to the grid for the second
_EXPECTED = {1: 0.092, 2: 0.0093}


class LatticeOptions(Options):
    """Options of e8."""

    stages: int = Field(1, ge=1, le=2, description="stages of 2 bits per weight")
    rotate: bool = Field(True, description="rotate first, which makes any weights nearly normal")


class LatticeQuantizer(Quantizer):
    """Groups of eight rotated weights become points of the lattice E8."""

    name = "e8"
    summary = "E8 lattice codes of 2 or 4 bits after a random Hadamard rotation; no codebook"
    source = "Tseng et al. 2024, QuIP#, arXiv 2402.04396, sections 3 and 4"
    Options = LatticeOptions
    ladder = ({"stages": 1}, {"stages": 2})

    def quantize(self, weight: Tensor, options: LatticeOptions, context: LayerContext) -> Code:
        """Rotate, find the nearest points of each stage, and fit the scales."""
        m, n = weight.shape
        parts: dict[str, Indices | Floats] = {}
        peak = weight.abs().max()
        matrix = weight / peak.where(peak > 0, 1.0)
        if options.rotate:
            generator = torch.Generator().manual_seed(context.seed)
            for name, length in (("column_signs", n), ("row_signs", m)):
                drawn = torch.randint(2, (sign_rows(length), length), generator=generator)
                parts[name] = Indices(drawn.to(weight.device), 2)
            matrix = _rotated(matrix, parts)
        flat = functional.pad(matrix.reshape(-1), (0, -m * n % DIMENSION)).view(-1, DIMENSION)
        size = flat.double().square().sum().div(m * n).sqrt().float()
        residual = flat * (_DENSITY / size.where(size > 0, 1.0))
        grid = points().to(weight.device)
        codes = []
        for stage in range(options.stages):
            codes.append(nearest(residual))
            residual = (residual - grid[codes[-1]]) * _REFINEMENT
            context.progress(stage + 1, options.stages)
        parts["codes"] = Indices(torch.stack(codes), CODES)
        parts["scale"] = Floats.of(_fit([grid[c] for c in codes], flat) * peak.double())
        return Code((m, n), parts)

    def check(self, code: Code) -> None:
        """Require codes of one or two stages, their scales, and signs for both sides or none."""
        m, n = code.shape
        codes = code.require_indices("codes", (-1, -(-m * n // DIMENSION)))
        stages = codes.values.shape[0]
        if codes.cardinality != CODES or not 1 <= stages <= 2:
            raise ValueError(
                f"e8 has 1 or 2 stages of {CODES} codes, not {stages} stages of "
                f"{codes.cardinality} codes"
            )
        code.require_floats("scale", (stages,))
        if "column_signs" in code.parts or "row_signs" in code.parts:
            for name, length in (("column_signs", n), ("row_signs", m)):
                code.require_indices(name, (sign_rows(length), length))

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        """Add the scaled points of the stages, and rotate back."""
        m, n = code.shape
        scale = params["scale"]
        grid = points().to(scale.device)
        flat = torch.zeros((), device=scale.device)
        for stage, codes in enumerate(code.indices("codes")):
            flat = flat + grid[codes.long()] * scale[stage]
        matrix = flat.reshape(-1)[: m * n].view(m, n)
        if "column_signs" not in code.parts:
            return matrix
        matrix = rotate_back(matrix.T, _signs(code.indices("row_signs"))).T
        return rotate_back(matrix, _signs(code.indices("column_signs"))).contiguous()

    def candidates(self, m: int, n: int) -> Iterable[LatticeOptions]:
        """Every number of stages."""
        return [LatticeOptions(stages=stages) for stages in (1, 2)]

    def layout(self, m: int, n: int, options: LatticeOptions) -> Code:
        """A code for every eight weights and stage, the scales, the signs."""
        parts: dict[str, Indices | Floats] = {}
        if options.rotate:
            for name, length in (("column_signs", n), ("row_signs", m)):
                parts[name] = Indices.layout(2, sign_rows(length), length)
        parts["codes"] = Indices.layout(CODES, options.stages, -(-m * n // DIMENSION))
        parts["scale"] = Floats.layout("float16", options.stages)
        return Code((m, n), parts)

    def expected_error(self, m: int, n: int, options: LatticeOptions) -> float:
        """The error measured on normal weights."""
        return _EXPECTED[options.stages]

    def paper_bits(self, m: int, n: int, options: LatticeOptions) -> float:
        """2 bits per weight and stage."""
        return 2 * options.stages * m * n


def _rotated(matrix: Tensor, parts: Mapping[str, Indices | Floats]) -> Tensor:
    columns, rows = parts["column_signs"], parts["row_signs"]
    assert isinstance(columns, Indices)
    assert isinstance(rows, Indices)
    matrix = rotate(matrix, _signs(columns.values))
    return rotate(matrix.T, _signs(rows.values)).T


def _signs(bits: Tensor) -> Tensor:
    return 1 - 2 * bits.to(torch.float32)


def _fit(stages: list[Tensor], target: Tensor) -> Tensor:
    """The scales, float64, for which the sum of the stages' points has the least error."""
    exact = target.double().reshape(-1)
    columns = torch.stack([points.double().reshape(-1) for points in stages])
    gram, right = columns @ columns.T, columns @ exact
    return torch.linalg.pinv(gram, hermitian=True) @ right  # singular if stages agree, as on zeros

"""Which weights survive pruning, and where they stand."""

import math

from pydantic import Field, model_validator
from torch import Tensor

from vqzoo.plugin import Code, Indices, Options, SkipLayer
from vqzoo_deep_compression.gaps import gaps_of, largest, positions_of

CONV_DENSITY, DENSE_DENSITY = 0.35, 0.1


class PruningOptions(Options):
    """How many weights survive, and how their positions are stored."""

    density: float | None = Field(
        None,
        gt=0,
        le=1,
        description=f"share of the weights that survives; {DENSE_DENSITY} of a Linear's and "
        f"{CONV_DENSITY} of a convolution's where neither it nor threshold is given",
    )
    threshold: float | None = Field(
        None, ge=0, description="magnitude above which weights survive, alike in every layer"
    )
    gap_bits: int = Field(4, ge=2, le=8, description="bits of a relative position: 4 or 8")

    @model_validator(mode="after")
    def _one_of_two(self) -> "PruningOptions":
        if self.density is not None and self.threshold is not None:
            raise ValueError("give density or threshold, not both")
        return self


def survivors(weight: Tensor, options: PruningOptions, kind: str) -> Tensor:
    """Positions of the weights that survive, ascending, in the matrix read row by row.

    Zeros never do, so that what was pruned before stays pruned.

    Raises:
        SkipLayer: none does.
    """
    flat = weight.reshape(-1)
    if options.threshold is not None:
        found = (flat.abs() > options.threshold).nonzero()[:, 0]
    else:
        density = options.density
        if density is None:
            density = DENSE_DENSITY if kind == "linear" else CONV_DENSITY
        found = largest(flat.cpu(), max(1, round(density * flat.numel())))
        found = found[flat[found] != 0]
    if not len(found):
        raise SkipLayer("no weight survives pruning")
    return found


def gaps_part(positions: Tensor, bits: int) -> Indices:
    """The part `gaps`: relative positions."""
    return Indices(gaps_of(positions.cpu(), bits), 1 << bits)


def count_survivors(code: Code) -> int:
    """How many weights the part `gaps` places, all of them inside of the matrix.

    Raises:
        ValueError: the part is missing, or places weights outside.
    """
    gaps = code.require_indices("gaps", (-1,))
    if gaps.bits > 8 or gaps.cardinality != 1 << gaps.bits:
        raise ValueError(f"gaps of {gaps.cardinality} symbols")
    positions = positions_of(gaps.values, gaps.bits)
    if not len(positions) or int(positions[-1]) >= math.prod(code.shape):
        raise ValueError("gaps lead outside of the matrix, or nowhere")
    return len(positions)


def scatter(code: Code, values: Tensor, out: Tensor | None = None) -> Tensor:
    """The matrix with `values` (count,) at the survivors' places.

    Differentiable without `out`; into it, where it is given and contiguous.
    """
    gaps = code.require_indices("gaps", (-1,))
    positions = positions_of(gaps.values, gaps.bits)
    if out is None or not out.is_contiguous():
        flat = values.new_zeros(math.prod(code.shape))
        return flat.scatter(0, positions, values).view(code.shape)
    out.zero_().view(-1)[positions] = values
    return out

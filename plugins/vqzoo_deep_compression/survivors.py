"""The choice of the weights that survive pruning, and their positions."""

import math
from dataclasses import replace

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from vqzoo.numerics.coding.gaps import gaps_of, positions_of, stretch_of
from vqzoo.numerics.decoding.sparse import SparseMatrix
from vqzoo.plugin import Code, Indices, Options, SkipLayer
from vqzoo.plugin.formats.packed_indices import held_codes

CONV_DENSITY, DENSE_DENSITY = 0.35, 0.1
_PARTS = 8  # of a matrix, that are decoded one after another: finding each takes a pass over gaps
DENSE_KINDS = ("linear", "attention")  # of layers; all others are treated as convolutions


class PruningOptions(Options):
    """Options that determine how many weights survive, and how their positions are stored."""

    density: float | None = Field(
        None,
        gt=0,
        le=1,
        description=f"fraction of the weights that survive; without density and threshold, "
        f"{DENSE_DENSITY} in a Linear and {CONV_DENSITY} in a convolution",
    )
    threshold: float | None = Field(
        None, ge=0, description="magnitude above which weights survive, the same in every layer"
    )
    gap_bits: int = Field(4, ge=2, le=8, description="bits of a relative position, 2 to 8")

    @model_validator(mode="after")
    def _one_of_two(self) -> "PruningOptions":
        if self.density is not None and self.threshold is not None:
            raise ValueError("give density or threshold, not both")
        return self


def survivors(weight: Tensor, options: PruningOptions, kind: str) -> Tensor:
    """The positions of the weights that survive, ascending, in the matrix read row by row.

    Zeros never survive, so that pruned weights stay pruned.

    Raises:
        SkipLayer: no weight survives.
    """
    flat = weight.reshape(-1)
    if options.threshold is not None:
        positions = (flat.abs() > options.threshold).nonzero()[:, 0]
    else:
        density = options.density
        if density is None:
            density = DENSE_DENSITY if kind in DENSE_KINDS else CONV_DENSITY
        positions = largest(flat.cpu(), max(1, round(density * flat.numel())))
        positions = positions[flat[positions] != 0]
    if not len(positions):
        raise SkipLayer("no weight survives pruning")
    return positions


def largest(values: Tensor, count: int) -> Tensor:
    """The positions of the `count` values of largest magnitude, ascending; ties go to the first.

    Args:
        values: (n,), float32, on the CPU.
        count: 0 to n.
    """
    if not 0 <= count <= len(values):
        raise ValueError(f"count must be between 0 and {len(values)}, not {count}")
    if count == 0:
        return torch.empty(0, dtype=torch.int64)
    magnitudes = values.abs()
    place = len(values) - count
    threshold = float(np.partition(magnitudes.numpy(), place)[place])
    above = magnitudes > threshold
    level = (magnitudes == threshold).nonzero()[:, 0][: count - int(above.sum())]
    above[level] = True
    return above.nonzero()[:, 0]


def gaps_part(positions: Tensor, bits: int) -> Indices:
    """The part `gaps`, which holds the positions."""
    return Indices(gaps_of(positions.cpu(), bits), 1 << bits)


def count_survivors(code: Code) -> int:
    """The number of positions in the part `gaps`, all of which lie in the matrix.

    Raises:
        ValueError: the part is missing, holds no position, or one outside the matrix.
    """
    gaps = code.require_indices("gaps", (-1,))
    if gaps.bits > 8 or gaps.cardinality != 1 << gaps.bits:
        raise ValueError(f"gaps have {gaps.cardinality} symbols, not a power of two up to 256")
    positions = positions_of(gaps.values, gaps.bits)
    if not len(positions) or int(positions[-1]) >= math.prod(code.shape):
        raise ValueError("gaps hold no position, or one outside the matrix")
    return len(positions)


def scatter(code: Code, values: Tensor, out: Tensor | None = None) -> Tensor:
    """The matrix with `values` (count,) at the survivors' positions, and zeros elsewhere.

    It is written to `out` if that is given and contiguous; otherwise it is differentiable.
    """
    gaps = code.require_indices("gaps", (-1,))
    positions = positions_of(gaps.values, gaps.bits)
    if out is None or not out.is_contiguous():
        flat = values.new_zeros(math.prod(code.shape))
        return flat.scatter(0, positions, values).view(code.shape)
    out.zero_().view(-1)[positions] = values
    return out


def sparse_matrix(code: Code, values: Tensor, table: Tensor | None = None) -> SparseMatrix:
    """The matrix, for products with the survivors alone.

    Args:
        values: (survivors,), float32; or their codes, uint8, with a table.
        table: (k,), float32.
    """
    part = code.index_part("gaps")
    gaps, width = held_codes(part)
    filler, count = part.cardinality - 1, part.shape[0]
    return SparseMatrix(code.shape[0], gaps, width, filler, count, values.detach(), table)


def rows_at_a_time(code: Code) -> int:
    """The rows in each part of a matrix."""
    return -(-code.shape[0] // _PARTS)


def survivors_in_rows(code: Code, start: int, stop: int, name: str) -> Code:
    """The code of rows `start` to `stop` - 1, whose survivors have their values, or codes of these,
    in part `name`."""
    gaps, n = code.require_indices("gaps", (-1,)), code.shape[1]
    stretch = stretch_of(gaps.values, gaps.bits, start * n, stop * n)
    parts = {
        "gaps": gaps_part(stretch.positions, gaps.bits).to(gaps.values.device),
        name: code.parts[name].narrow(0, stretch.first, stretch.last),
    }
    return replace(code, shape=(stop - start, n), parts={**code.parts, **parts})

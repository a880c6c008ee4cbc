"""The steps of a grid: powers of √2, a factor a row times a factor a column."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqzoo.plugin import Floats

RANGE = 255  # exponents of rows, and of columns, lie at most so far apart
_LEVELS = 1 << 13  # steps to the largest weight of a row, at most
_FEWEST = 0.25  # steps to the largest weight of the matrix, at least


@dataclass(frozen=True)
class Steps:
    """The step of weight (i, j) is unit · 2^((rows_i + columns_j) / 2).

    Attributes:
        unit: (1,), stored in float16.
        rows: (m,) int64, 0 to `RANGE`.
        columns: (n,) int64, 0 to `RANGE`.
    """

    unit: Floats
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]

    @property
    def row_steps(self) -> NDArray[np.float32]:
        """(m,) float32: the row's factor, the unit included."""
        return row_factors(torch.from_numpy(self.rows), self.unit.values).numpy()

    @property
    def column_steps(self) -> NDArray[np.float32]:
        """(n,) float32: the column's factor."""
        return powers(torch.from_numpy(self.columns)).numpy()


def powers(exponents: Tensor) -> Tensor:
    """2^(exponent / 2), float32."""
    return torch.exp2(exponents.double() / 2).float()


def row_factors(exponents: Tensor, unit: Tensor) -> Tensor:
    """unit · 2^(exponent / 2), float32 and differentiable in the unit."""
    return (unit.double() * torch.exp2(exponents.double() / 2)).float()


def choose_steps(
    weights: NDArray[np.float32],
    row_weights: NDArray[np.float64],
    metric: NDArray[np.float64],
    price: float,
    spacing: int,
    share: float,
) -> Steps:
    """The steps that suit an entropy-constrained quantizer at high rate.

    Where errors e of weight (i, j) cost ½ g_i D_ij e² and a bit costs λ, a grid of step Δ has the
    least cost for Δ² = 12 λ / (ln 2 · g_i D_ij). D is approximated by a factor a row times one a
    column.

    Args:
        weights: (m, n).
        row_weights: g, (m,), positive.
        metric: D, (groups, n), positive; the first m / groups rows belong to the first group.
        price: λ.
        spacing: steps from one level of a quantizer to the next: 2 with a trellis, else 1.
        share: of Δ, to use as the step.
    """
    logs = np.log2(metric)
    columns = logs.mean(0)
    groups = np.repeat((logs - columns).mean(1), len(weights) // len(metric))
    ideal = math.log2(12 * price / math.log(2)) - np.log2(row_weights) - groups
    middle = ideal.mean() - columns.mean()
    unit = share * 2.0 ** (middle / 2)
    row_exponents = np.rint(ideal - ideal.mean())
    column_exponents = np.clip(np.rint(columns.mean() - columns), -RANGE // 2, RANGE // 2)
    row_exponents = _bounded(weights, row_exponents, column_exponents, unit, spacing)
    row_exponents = np.maximum(row_exponents, row_exponents.max() - RANGE)
    low, left = row_exponents.min(), column_exponents.min()
    return Steps(
        Floats.scales(torch.tensor([unit * 2.0 ** ((low + left) / 2)], dtype=torch.float64)),
        (row_exponents - low).astype(np.int64),
        (column_exponents - left).astype(np.int64),
    )


def _bounded(
    weights: NDArray[np.float32],
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
    unit: float,
    spacing: int,
) -> NDArray[np.float64]:
    """Exponents of rows with which no code is huge, and no step far beyond all weights."""
    magnitudes = np.abs(weights).astype(np.float64)
    highest = float(magnitudes.max())
    if highest == 0:
        return rows
    largest = highest / _FEWEST / 2.0 ** (columns.min() / 2)
    rows = np.minimum(rows, np.ceil(2 * math.log2(largest / unit)))
    peaks = (magnitudes / 2.0 ** (columns / 2)).max(1) / (_LEVELS * spacing)
    least = np.full(len(rows), -np.inf)
    np.log2(peaks / unit, out=least, where=peaks > 0)
    result: NDArray[np.float64] = np.maximum(rows, np.ceil(2 * least))
    return result

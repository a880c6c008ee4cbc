"""The error of a decoded matrix."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vqzoo.numerics.arrays import row_chunk

_FLOOR_DB = -300.0


@dataclass(frozen=True)
class MatrixError:
    """Signal-to-quantization-noise ratios in dB, at least -300; None for a perfect copy.

    Attributes:
        sqnr_db: 10·log10(‖W‖² / ‖W - Ŵ‖²) over the whole matrix.
        row_sqnr_db: 10·log10(1 / mean over rows of ‖w - ŵ‖² / ‖w‖²): every row counts the same,
            however small its weights are (a batch norm behind a channel cancels its scale). A row
            of zeros that did not stay zero counts as an error of 1.
    """

    sqnr_db: float | None
    row_sqnr_db: float | None


def matrix_error(weight: Tensor, decoded: Tensor) -> MatrixError:
    """Compare two (m, n) matrices in float64, a few rows at a time, where `weight` is."""
    rows = min(row_chunk(4 * weight.shape[1]), weight.shape[0])
    # Buffers for all rows: torch would make a float64 temporary of each operand.
    exact, other = weight.new_empty(2, rows, weight.shape[1], dtype=torch.float64)
    noise, signal = [], []
    for before, after in zip(weight.split(rows), decoded.split(rows), strict=True):
        difference, original = exact[: len(before)], other[: len(before)].copy_(before)
        noise.append(difference.copy_(after).sub_(original).square_().sum(dim=1))
        signal.append(original.square_().sum(dim=1))
    row_noise, row_signal = torch.cat(noise), torch.cat(signal)
    relative = row_noise / row_signal.where(row_signal > 0, row_noise.where(row_noise > 0, 1.0))
    return MatrixError(
        _decibels(float(row_noise.sum()), float(row_signal.sum())),
        _decibels(float(relative.mean()), 1.0),
    )


def _decibels(noise: float, signal: float) -> float | None:
    if noise == 0:
        return None
    return max(_FLOOR_DB, 10 * math.log10(signal / noise)) if signal > 0 else _FLOOR_DB

"""The error of a decoded matrix."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vqzoo.numerics.rows import for_rows
from vqzoo.numerics.squares import write_squares

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
    """Compare two (m, n) matrices in float64, where `weight` is."""
    noise, signal = weight.new_empty(2, weight.shape[0], dtype=torch.float64)

    def compare(rows: slice, buffer: Tensor) -> None:
        write_squares(decoded[rows], weight[rows], buffer[0], buffer[1])
        torch.sum(buffer[0], dim=1, out=noise[rows])
        torch.sum(buffer[1], dim=1, out=signal[rows])

    for_rows(weight, compare, buffers=2, dtype=torch.float64)
    relative = noise / signal.where(signal > 0, noise.where(noise > 0, 1.0))
    return MatrixError(
        _decibels(float(noise.sum()), float(signal.sum())),
        _decibels(float(relative.mean()), 1.0),
    )


def _decibels(noise: float, signal: float) -> float | None:
    if noise == 0:
        return None
    return max(_FLOOR_DB, 10 * math.log10(signal / noise)) if signal > 0 else _FLOOR_DB

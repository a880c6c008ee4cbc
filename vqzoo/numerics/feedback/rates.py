"""What codes cost in bits, by classes of rows and columns."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqzoo.numerics.arrays import Codes
from vqzoo.numerics.coding.context.classes import cell_bits, classify
from vqzoo.numerics.coding.context.walks import walk_parities


@dataclass(frozen=True)
class Rates:
    """Prices of the codes -reach to reach in each class of rows and columns.

    Attributes:
        bits: (row classes, column classes, states, 2·reach + 1) float32; two states with a trellis.
        row_classes: (m,) int32.
        column_classes: (n,) int32.
    """

    bits: NDArray[np.float32]
    row_classes: NDArray[np.int32]
    column_classes: NDArray[np.int32]


def free(m: int, n: int, reach: int) -> Rates:
    """All codes at no cost: the choice is then the nearest."""
    bits = np.zeros((1, 1, 2, 2 * reach + 1), np.float32)
    return Rates(bits, np.zeros(m, np.int32), np.zeros(n, np.int32))


def laplacian(mean: float, m: int, n: int, reach: int) -> Rates:
    """Codes whose probability falls by the same factor with each step from 0: a first guess.

    Args:
        mean: of the codes' magnitudes.
    """
    ratio = mean / (1 + mean)
    magnitudes = np.abs(np.arange(-reach, reach + 1))
    bits = -np.log2(max(ratio, 1e-9)) * magnitudes - np.log2((1 - ratio) / (1 + ratio))
    return Rates(
        np.tile(bits.astype(np.float32), (1, 1, 2, 1)), np.zeros(m, np.int32), np.zeros(n, np.int32)
    )


def observed(codes: Codes, reach: int, trellis: bool) -> Rates:
    """What the coder of classes (`coding/context`) would take for codes like these.

    Args:
        codes: (m, n) int32, -reach to reach.
        reach: at least 1.
        trellis: whether codes are those of a trellis, whose quantizers have prices of their own.
    """
    states = walk_parities(codes, 0) if trellis else np.zeros(codes.shape, np.uint8)
    classes = classify(codes + np.int32(reach), states, 2 * reach + 1)
    bits = cell_bits(classes.counts).astype(np.float32)
    if trellis and bits.shape[2] == 1:  # every code was even
        bits = np.repeat(bits, 2, axis=2)
    return Rates(bits, classes.rows, classes.columns)

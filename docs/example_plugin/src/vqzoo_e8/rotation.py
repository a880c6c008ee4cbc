"""Random orthogonal transforms of any length in O(n log n), built from Hadamard transforms."""

import math

import torch
from torch import Tensor


def sign_rows(length: int) -> int:
    """The rows of signs that `rotate` needs: one if the length is a power of two, else two."""
    return 1 if length == _power(length) else 2


def rotate(matrix: Tensor, signs: Tensor) -> Tensor:
    """Rotate the rows of an (m, n) matrix.

    Multiply by signs, then transform the first p columns, p being the largest power of two up to n.
    If p < n, multiply by signs again, and transform the last p columns.

    Args:
        signs: (sign_rows(n), n), of -1 and 1.
    """
    p, n = _power(matrix.shape[1]), matrix.shape[1]
    matrix = matrix * signs[0]
    matrix = torch.cat([hadamard(matrix[:, :p]), matrix[:, p:]], 1)
    if p < n:
        matrix = matrix * signs[1]
        matrix = torch.cat([matrix[:, : n - p], hadamard(matrix[:, n - p :])], 1)
    return matrix


def rotate_back(matrix: Tensor, signs: Tensor) -> Tensor:
    """Undo `rotate`."""
    p, n = _power(matrix.shape[1]), matrix.shape[1]
    if p < n:
        matrix = torch.cat([matrix[:, : n - p], hadamard(matrix[:, n - p :])], 1) * signs[1]
    return torch.cat([hadamard(matrix[:, :p]), matrix[:, p:]], 1) * signs[0]


def hadamard(matrix: Tensor) -> Tensor:
    """Apply the orthonormal Walsh-Hadamard transform to each row; it is its own inverse.

    Args:
        matrix: (m, p), p a power of two.
    """
    m, p = matrix.shape
    width = 1
    while width < p:
        pairs = matrix.reshape(m, -1, 2, width)
        first, second = pairs[:, :, 0], pairs[:, :, 1]
        matrix = torch.stack([first + second, first - second], 2)
        width *= 2
    return matrix.reshape(m, p) / math.sqrt(p)


def _power(length: int) -> int:
    return 1 << (length.bit_length() - 1)

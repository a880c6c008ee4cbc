"""Decoded matrices of small layers, which are kept."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

MOST_KEPT = 1 << 15
"""Weights of a matrix that is kept, 128 KiB: the calls that decode it would take longer than the
product."""


class KeptMatrix:
    """The decoded matrix of a code, as long as the code's floats have the same values."""

    def __init__(self) -> None:
        self._kept: tuple[dict[str, Tensor], Tensor] | None = None

    def get(self, floats: Mapping[str, Tensor], decode: Callable[[], Tensor]) -> Tensor:
        """The matrix that `decode` returns with these floats; nobody may write to it."""
        if self._kept is not None:
            seen, matrix = self._kept
            if all(torch.equal(values, seen[name]) for name, values in floats.items()):
                return matrix
        matrix = decode()
        self._kept = ({name: values.clone() for name, values in floats.items()}, matrix)
        return matrix

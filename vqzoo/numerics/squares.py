"""Squares of errors in float64, without temporaries for the conversions."""

from typing import Any

import numpy as np
from torch import Tensor

from vqzoo.numerics.compiled import compiled


def write_squares(a: Tensor, b: Tensor, errors: Tensor, squares: Tensor) -> None:
    """Write (a - b)² into `errors` and b² into `squares`.

    Args:
        a: float32, (m, n).
        b: float32, (m, n).
        errors: float64, (m, n).
        squares: float64, (m, n).
    """
    if a.device.type == "cpu":
        arrays = (tensor.detach().numpy() for tensor in (a.contiguous(), b.contiguous()))
        _write_squares(*arrays, errors.numpy(), squares.numpy())
    else:
        errors.copy_(a).sub_(b.double()).square_()
        squares.copy_(b).square_()


@compiled()
def _write_squares(a: Any, b: Any, errors: Any, squares: Any) -> None:
    for row in range(a.shape[0]):
        for column in range(a.shape[1]):
            value = np.float64(b[row, column])
            error = np.float64(a[row, column]) - value
            errors[row, column] = error * error
            squares[row, column] = value * value

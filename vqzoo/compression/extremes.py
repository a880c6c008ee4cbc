"""Weights at the ends of the range of floats, which a method may not keep."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from vqzoo.compression.measures.distortion import MatrixError
from vqzoo.errors import PluginError
from vqzoo.numerics.arrays import all_finite, peak_exponent
from vqzoo.plugin.method import SkipLayer

_USUAL = 64  # |e| of a largest weight 2^e whose square is within float32, with some room

_SQUARES = 48  # e of a largest value 2^e of which 2^32 squares add up within float32


def check_range(weight: Tensor, matrix: Tensor) -> None:
    """Refuse a float64 weight that float32 cannot hold; methods get it as float32.

    Args:
        weight: the layer's weight.
        matrix: the same in float32.

    Raises:
        SkipLayer: a value became infinite, or all of them zero.
    """
    if weight.dtype == torch.float64 and (
        not all_finite(matrix) or (not matrix.any() and bool(weight.any()))
    ):
        raise SkipLayer(f"its weights of up to {_peak(weight):.1e} are outside float32's range")


@contextmanager
def extremes_stay_dense(matrix: Tensor) -> Iterator[None]:
    """Within the block, a plugin's failure skips a layer whose weights are huge or tiny.

    Raises:
        SkipLayer: in the place of the PluginError.
    """
    try:
        yield
    except PluginError as error:
        if not _extreme(matrix):
            raise
        raise SkipLayer(f"its weights of up to {_peak(matrix):.1e}: {error}") from error


def check_kept(
    matrix: Tensor, decoded: Tensor, error: MatrixError, dtype: torch.dtype, method: str
) -> None:
    """Refuse a decoded matrix that lost what huge or tiny weights were, or that overflows `dtype`.

    Args:
        matrix: the weight as float32.
        decoded: what it was decoded to, float32.
        error: of `decoded`.
        dtype: of the weight, which the decoded values are rounded to.
        method: for the message.

    Raises:
        SkipLayer: all of `decoded`, or most of its rows, is no closer to huge or tiny weights than
            zeros are; or rounding to `dtype` makes values infinite or all of them zero.
    """
    levels = (error.sqnr_db, error.row_sqnr_db)
    if _extreme(matrix) and any(level is not None and level <= 0 for level in levels):
        raise SkipLayer(
            f"{method} does not keep its weights of up to {_peak(matrix):.1e}: they decode to "
            "something no closer to them than zeros"
        )
    if dtype in (torch.float16, torch.bfloat16):
        rounded = decoded.to(dtype)
        if not all_finite(rounded) or (not rounded.any() and bool(decoded.any())):
            name = str(dtype).removeprefix("torch.")
            raise SkipLayer(
                f"its decoded weights of up to {_peak(decoded):.1e} are outside the range of {name}"
            )


def squares_overflow(values: Tensor) -> bool:
    """Whether sums of the squares of float32 values may leave float32."""
    return peak_exponent(values) > _SQUARES


def _extreme(matrix: Tensor) -> bool:
    return abs(peak_exponent(matrix)) > _USUAL


def _peak(tensor: Tensor) -> float:
    low, high = torch.aminmax(tensor.detach())
    return max(-float(low), float(high))

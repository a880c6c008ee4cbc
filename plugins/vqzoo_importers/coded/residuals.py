"""Weights that are sums of entries of tables, as codes of rq."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqzoo.plugin import Code, MethodCode, stored_bits
from vqzoo_importers.coded.tables import Shape, TableTensor, row_scale
from vqzoo_importers.coded.vectors import vector_parts

Array = NDArray[Any]


@dataclass(frozen=True)
class ResidualTensor:
    """A tensor that is the sum of several, of entries of one table, times scales if given.

    Attributes:
        stages: their entries (stages, ...), without scales.
        scale: (count,) float32; None without scales.
        scale_index: integers of the tensor's shape.
    """

    stages: TableTensor
    scale: NDArray[np.float32] | None = None
    scale_index: Array | None = None

    @property
    def shape(self) -> Shape:
        """The tensor's shape."""
        return self.stages.shape[1:]

    def moved(self, move: Callable[[Array], Array]) -> "ResidualTensor":
        """The tensor with its values at the places where a function of arrays puts them."""
        stages = replace(self.stages, index=np.stack([move(one) for one in self.stages.index]))
        scales = None if self.scale_index is None else move(self.scale_index)
        return replace(self, stages=stages, scale_index=scales)

    def reshape(self, shape: Shape) -> "ResidualTensor":
        """The tensor in another shape."""
        return self.moved(lambda array: array.reshape(shape))

    def transpose(self, axes: Shape) -> "ResidualTensor":
        """The tensor with its axes in another order."""
        return self.moved(lambda array: array.transpose(axes))

    def times(self, scale: NDArray[np.float32]) -> "ResidualTensor":
        """The tensor, which has no scales yet, times an array that is broadcast to its shape."""
        values, places = np.unique(scale, return_inverse=True)
        spread = np.broadcast_to(places.reshape(scale.shape), self.shape)
        return replace(self, scale=values, scale_index=spread)

    def values(self) -> NDArray[np.float32]:
        """The tensor's values."""
        total: NDArray[np.float32] = self.stages.values().sum(0, dtype=np.float32)
        if self.scale is not None:
            total = total * self.scale[self.scale_index]
        return total


def residual_code(tensor: ResidualTensor) -> MethodCode | None:
    """The code of a tensor as a matrix, all axes but the first flattened; None if that is none of
    rq, or no smaller than the weight."""
    matrix = tensor.reshape((tensor.shape[0], -1))
    scale = row_scale(matrix.scale, matrix.scale_index)
    if matrix.scale is not None and scale is None:
        return None
    stages, (m, n) = matrix.stages, matrix.shape
    parts = vector_parts(stages.index, stages.table, stages.width, stages.tail)
    if parts is None:
        return None
    code = Code((m, n), parts | (scale or {}), {"d": stages.width})
    return MethodCode("rq", code) if stored_bits(code) < 32 * m * n else None

"""Weights that are products of two thin matrices, as codes of svd."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqzoo.plugin import Code, MethodCode
from vqzoo_importers.coded.tables import Shape
from vqzoo_importers.coded.vectors import exact_floats

Array = NDArray[Any]


@dataclass(frozen=True)
class FactoredTensor:
    """A tensor that is a product, as a matrix, all axes but the first flattened.

    Attributes:
        left: floats (m, r).
        right: floats (r, ...), of which the tensor has the axes behind the first.
    """

    left: Array
    right: Array

    @property
    def shape(self) -> Shape:
        """The tensor's shape."""
        return (len(self.left), *self.right.shape[1:])

    def reshape(self, shape: Shape) -> "FactoredTensor":
        """The tensor in another shape with the same first axis."""
        return replace(self, right=self.right.reshape((len(self.right), *shape[1:])))

    def transpose(self, axes: Shape) -> "FactoredTensor":
        """The matrix with its two axes exchanged."""
        if axes != (1, 0) or self.right.ndim != 2:
            raise ValueError(f"a product is no matrix, or {axes} are not its axes exchanged")
        return FactoredTensor(self.right.T, self.left.T)

    def values(self) -> NDArray[np.float32]:
        """The tensor's values."""
        right = self.right.astype(np.float32).reshape(len(self.right), -1)
        product: NDArray[np.float32] = self.left.astype(np.float32) @ right
        return product.reshape(self.shape)


def factored_code(tensor: FactoredTensor) -> MethodCode:
    """The two factors of a tensor as a matrix."""
    (m, rank), n = tensor.left.shape, math.prod(tensor.shape[1:])
    parts = {
        "left": exact_floats(tensor.left),
        "right": exact_floats(tensor.right.reshape(rank, n)),
    }
    return MethodCode("svd", Code((m, n), {**parts}))

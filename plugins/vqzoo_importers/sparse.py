"""Weights of which most are zero, as codes of prune."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vqzoo.errors import VqzooError
from vqzoo.numerics.coding.gaps import gaps_of
from vqzoo.plugin import Code, Indices, MethodCode, stored_bits
from vqzoo_importers.tables import Shape, exact_floats

Array = NDArray[Any]
_GAP_BITS = range(1, 9)  # that prune reads


@dataclass(frozen=True)
class SparseTensor:
    """A tensor that is zero outside a mask.

    Attributes:
        dense: floats, zeros included.
        mask: whether a value is stored, of the same shape.
    """

    dense: Array
    mask: NDArray[np.bool_]

    @property
    def shape(self) -> Shape:
        """The tensor's shape."""
        return self.dense.shape

    def reshape(self, shape: Shape) -> "SparseTensor":
        """The tensor in another shape."""
        return replace(self, dense=self.dense.reshape(shape), mask=self.mask.reshape(shape))

    def transpose(self, axes: Shape) -> "SparseTensor":
        """The tensor with its axes in another order."""
        return SparseTensor(self.dense.transpose(axes), self.mask.transpose(axes))

    def values(self) -> Array:
        """The tensor's values."""
        return self.dense


def scattered(values: Array, mask: Array) -> Array:
    """Values at the places of a mask, in their order, and zeros elsewhere.

    Raises:
        VqzooError: there are more or fewer values than places.
    """
    places = mask.astype(bool)
    if values.ndim != 1 or values.size != np.count_nonzero(places):
        raise VqzooError(f"{values.size} values are not those of {np.count_nonzero(places)} places")
    dense = np.zeros(mask.shape, dtype=values.dtype)
    dense[places] = values
    return dense


def sparse_code(tensor: SparseTensor) -> MethodCode | None:
    """The smallest code of a tensor as a matrix, all axes but the first flattened; None if that is
    no smaller than the tensor itself."""
    shape = (tensor.shape[0], tensor.dense.size // tensor.shape[0])
    positions = torch.from_numpy(np.flatnonzero(tensor.mask))
    if not len(positions):
        return None
    values = exact_floats(tensor.dense[tensor.mask])
    codes = [
        Code(shape, {"gaps": Indices(gaps_of(positions, bits), 1 << bits), "values": values})
        for bits in _GAP_BITS
    ]
    best = min(codes, key=stored_bits)
    dense = tensor.dense.size * values.stored.element_size() * 8
    return MethodCode("prune", best) if stored_bits(best) < dense else None

"""Weights of which most are zero, as codes of prune."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vqzoo.errors import VqzooError
from vqzoo.numerics.coding.gaps import gaps_of
from vqzoo.plugin import Code, Floats, Indices, MethodCode, stored_bits
from vqzoo_importers.coded.tables import Shape, TableTensor, table_code
from vqzoo_importers.coded.vectors import exact_floats

Array = NDArray[Any]
_GAP_BITS = range(1, 9)  # that prune reads


@dataclass(frozen=True)
class SparseTensor:
    """A tensor that is zero outside a mask.

    Attributes:
        dense: floats, zeros included.
        mask: whether a value is stored, of the same shape.
        entries: (count,) what the stored values are, in their order; None where those are floats.
    """

    dense: Array
    mask: NDArray[np.bool_]
    entries: TableTensor | None = None

    @property
    def shape(self) -> Shape:
        """The tensor's shape."""
        return self.dense.shape

    def reshape(self, shape: Shape) -> "SparseTensor":
        """The tensor in another shape."""
        return replace(self, dense=self.dense.reshape(shape), mask=self.mask.reshape(shape))

    def transpose(self, axes: Shape) -> "SparseTensor":
        """The tensor with its axes in another order, its stored values as floats."""
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
    method, parts = _stored(tensor)
    codes = [
        Code(shape, {"gaps": Indices(gaps_of(positions, bits), 1 << bits)} | parts)
        for bits in _GAP_BITS
    ]
    best = min(codes, key=stored_bits)
    dense = tensor.dense.size * 8 * exact_floats(tensor.dense).stored.element_size()
    return MethodCode(method, best) if stored_bits(best) < dense else None


def _stored(tensor: SparseTensor) -> tuple[str, dict[str, Indices | Floats]]:
    """The method that stores values as they are, and the parts with them."""
    if tensor.entries is not None:
        code = table_code(tensor.entries.reshape((1, -1)))
        if code is not None and code.method == "km" and "scale" not in code.code.parts:
            codes, codebook = code.code.indices("codes")[0], code.code.parts["codebook"]
            assert isinstance(codebook, Floats)
            entries = codebook.stored.numel()
            return "deep-compression", {"codes": Indices(codes, entries), "codebook": codebook}
    return "prune", {"values": exact_floats(tensor.dense[tensor.mask])}

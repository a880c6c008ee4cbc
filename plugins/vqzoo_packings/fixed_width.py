"""bits: ceil(log2 k) bits for every code."""

from torch import Tensor

from vqzoo.numerics.coding.bits import pack, unpack
from vqzoo.plugin import Packing, index_bits


class FixedWidth(Packing):
    """A little-endian bit stream of fixed-width codes."""

    name = "bits"
    summary = "fixed width: ceil(log2 k) bits a code, little-endian"
    random_access = True

    def pack(self, values: Tensor, cardinality: int) -> Tensor:
        """ceil(count · bits / 8) bytes."""
        return pack(values, index_bits(cardinality))

    def unpack(self, stream: Tensor, cardinality: int, count: int) -> Tensor:
        """The codes."""
        return unpack(stream, index_bits(cardinality), count)

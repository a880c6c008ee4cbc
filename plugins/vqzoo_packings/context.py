"""context: codes of a matrix at the entropy of their row's and column's class."""

from torch import Tensor

from vqzoo.numerics.coding import ans
from vqzoo.numerics.coding.context import stream as contexts
from vqzoo.numerics.coding.context.first import stream as first
from vqzoo.plugin import Packing


class Context(Packing):
    """rANS with frequencies for each class of rows and columns, and for the state of a trellis.

    Codes that are not a matrix have no rows and columns; they are packed as by `ans`.
    """

    name = "context"
    version = "2"
    earlier = ("1",)
    summary = "rANS with frequencies for classes of rows and columns: the smallest files"

    def pack(self, values: Tensor, cardinality: int) -> Tensor:
        """A stream of `ans`."""
        return ans.pack(values, cardinality)

    def unpack(self, stream: Tensor, cardinality: int, count: int) -> Tensor:
        """The codes."""
        return ans.unpack(stream, cardinality, count)

    def pack_part(self, values: Tensor, cardinality: int) -> Tensor:
        """The head, with classes and tables of frequencies, and the chunks; empty for no codes."""
        if values.dim() != 2:
            return super().pack_part(values, cardinality)
        return contexts.pack(values, cardinality)

    def unpack_part(self, stream: Tensor, cardinality: int, shape: tuple[int, ...]) -> Tensor:
        """The codes."""
        if len(shape) != 2:
            return super().unpack_part(stream, cardinality, shape)
        return contexts.unpack(stream, cardinality, *shape)

    def unpack_earlier(
        self, version: str, stream: Tensor, cardinality: int, shape: tuple[int, ...]
    ) -> Tensor:
        """The codes of a stream of version 1."""
        if len(shape) != 2:
            return super().unpack_part(stream, cardinality, shape)
        return first.unpack(stream, cardinality, *shape)

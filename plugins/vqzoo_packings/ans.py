"""ans: codes at about their entropy."""

from torch import Tensor

from vqzoo.numerics.coding.ans import pack, unpack
from vqzoo.plugin import Packing


class Ans(Packing):
    """Interleaved rANS, in chunks."""

    name = "ans"
    summary = "interleaved rANS: about the entropy of the codes, in fractions of bits"

    def pack(self, values: Tensor, cardinality: int) -> Tensor:
        """A head of a few bytes, the table of frequencies, the chunks; empty for no codes."""
        return pack(values, cardinality)

    def unpack(self, stream: Tensor, cardinality: int, count: int) -> Tensor:
        """The codes."""
        return unpack(stream, cardinality, count)

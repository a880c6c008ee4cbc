"""huffman: fewer bits for frequent codes."""

from torch import Tensor

from vqzoo.numerics.coding.huffman import pack, unpack
from vqzoo.plugin import Packing


class Huffman(Packing):
    """Canonical Huffman codes of at most 32 bits, in chunks."""

    name = "huffman"
    summary = "canonical Huffman codes: fewer bits for frequent codes"

    def pack(self, values: Tensor, cardinality: int) -> Tensor:
        """A head of a few bytes, the table of lengths, the chunks; empty for no codes."""
        return pack(values, cardinality)

    def unpack(self, stream: Tensor, cardinality: int, count: int) -> Tensor:
        """The codes."""
        return unpack(stream, cardinality, count)

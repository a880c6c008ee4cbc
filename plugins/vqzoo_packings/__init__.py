"""Packings of integer codes."""

from vqzoo.plugin import Packing, hookimpl
from vqzoo_packings.ans import Ans
from vqzoo_packings.context import Context
from vqzoo_packings.fixed_width import FixedWidth
from vqzoo_packings.huffman import Huffman

vqzoo_contract = 1


@hookimpl
def vqzoo_packings() -> list[Packing]:
    """The built-in packings."""
    return [FixedWidth(), Huffman(), Ans(), Context()]

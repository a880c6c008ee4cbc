"""Packings of integer codes."""

from vqzoo.plugin import Packing, hookimpl
from vqzoo_packings.fixed_width import FixedWidth

vqzoo_contract = 1


@hookimpl
def vqzoo_packings() -> list[Packing]:
    """The built-in packings."""
    return [FixedWidth()]

"""Packings of integer codes."""

from vqzoo.plugin import Packing, hookimpl
from vqzoo_packings.fixed_width import FixedWidth


@hookimpl
def vqzoo_packings() -> list[Packing]:
    """The built-in packings."""
    return [FixedWidth()]

"""Rounding to the nearest point of a uniform grid, the usual baseline."""

from vqzoo.plugin import Quantizer, hookimpl
from vqzoo_uniform.rtn import RoundToNearest

vqzoo_contract = 1


@hookimpl
def vqzoo_quantizers() -> list[Quantizer]:
    """The quantizer rtn."""
    return [RoundToNearest()]

"""E8 lattice vector quantization for vqzoo."""

from vqzoo.plugin import Quantizer, hookimpl
from vqzoo_e8.quantizer import LatticeQuantizer

vqzoo_contract = 1


@hookimpl
def vqzoo_quantizers() -> list[Quantizer]:
    """Register the method."""
    return [LatticeQuantizer()]

"""Round-to-nearest on a uniform grid: the baseline that everybody asks for."""

from vqzoo.plugin import Quantizer, hookimpl
from vqzoo_uniform.rtn import RoundToNearest

vqzoo_contract = 1


@hookimpl
def vqzoo_quantizers() -> list[Quantizer]:
    """The baseline."""
    return [RoundToNearest()]

"""Round-to-nearest on a uniform grid: the baseline that everybody asks for."""

from vqzoo.plugin import Quantizer, hookimpl
from vqzoo_uniform.rtn import RoundToNearest


@hookimpl
def vqzoo_quantizers() -> list[Quantizer]:
    """The baseline."""
    return [RoundToNearest()]

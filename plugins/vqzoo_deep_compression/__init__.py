"""Deep Compression (Han, Mao, Dally 2016, arXiv 1510.00149): pruning and shared values.

The paper's third stage, entropy coding, is a packing.
"""

from vqzoo.plugin import Quantizer, hookimpl
from vqzoo_deep_compression.prune import Prune
from vqzoo_deep_compression.sharing import DeepCompression

vqzoo_contract = 1


@hookimpl
def vqzoo_quantizers() -> list[Quantizer]:
    """Pruning, alone or before any other method, and pruning with shared values."""
    return [DeepCompression(), Prune()]

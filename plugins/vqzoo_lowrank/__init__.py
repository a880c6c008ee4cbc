"""Matrix factorization: the baseline of Gong et al. 2014."""

from vqzoo.plugin import Quantizer, hookimpl
from vqzoo_lowrank.svd import SingularValues

vqzoo_contract = 1


@hookimpl
def vqzoo_quantizers() -> list[Quantizer]:
    """The baseline."""
    return [SingularValues()]

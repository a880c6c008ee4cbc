"""Low-rank factorization, the baseline of Gong et al. 2014 (arXiv 1412.6115)."""

from vqzoo.plugin import Quantizer, hookimpl
from vqzoo_lowrank.svd import SingularValues

vqzoo_contract = 1


@hookimpl
def vqzoo_quantizers() -> list[Quantizer]:
    """The quantizer svd."""
    return [SingularValues()]

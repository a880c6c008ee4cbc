"""Uniform grids: rounding to nearest, the usual baseline, and an entropy-constrained grid."""

from vqzoo.plugin import Quantizer, hookimpl
from vqzoo_uniform.ecq import EntropyConstrained
from vqzoo_uniform.rtn import RoundToNearest

vqzoo_contract = 1


@hookimpl
def vqzoo_quantizers() -> list[Quantizer]:
    """The quantizers rtn and ecq."""
    return [RoundToNearest(), EntropyConstrained()]

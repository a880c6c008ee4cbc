"""Diagonal and binary factors: Ono 2026."""

from vqzoo.plugin import Quantizer, hookimpl
from vqzoo_diba.diba import DiagonalBinaryFactors

vqzoo_contract = 1


@hookimpl
def vqzoo_quantizers() -> list[Quantizer]:
    """DiBA."""
    return [DiagonalBinaryFactors()]

"""DiBA: diagonal and binary factors (Ono 2026, arXiv 2605.05994)."""

from vqzoo.plugin import Quantizer, hookimpl
from vqzoo_diba.diba import DiagonalBinaryFactors

vqzoo_contract = 1


@hookimpl
def vqzoo_quantizers() -> list[Quantizer]:
    """The quantizer diba."""
    return [DiagonalBinaryFactors()]

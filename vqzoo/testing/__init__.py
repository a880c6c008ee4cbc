"""The conformance kit: checks of the plugin contract, each one line in a plugin's tests."""

from vqzoo.testing.broken import ContractBroken
from vqzoo.testing.engine import check_engine
from vqzoo.testing.packing import check_packing
from vqzoo.testing.quantizer import check_quantizer
from vqzoo.testing.selector import check_selector
from vqzoo.testing.transform import check_transform

__all__ = [
    "ContractBroken",
    "check_engine",
    "check_packing",
    "check_quantizer",
    "check_selector",
    "check_transform",
]

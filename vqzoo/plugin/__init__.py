"""The plugin contract: all that a plugin author imports."""

from vqzoo.plugin.code import Code, Floats, Indices, MethodCode, index_bits, stored_bits
from vqzoo.plugin.contract import CONTRACT_VERSION
from vqzoo.plugin.hookspecs import hookimpl
from vqzoo.plugin.method import LayerContext, Method, Options, SkipLayer
from vqzoo.plugin.packing import Packing
from vqzoo.plugin.quantizer import Quantizer
from vqzoo.plugin.selector import LayerInfo, LayerSelector
from vqzoo.plugin.transform import Transform

__all__ = [
    "CONTRACT_VERSION",
    "Code",
    "Floats",
    "Indices",
    "LayerContext",
    "LayerInfo",
    "LayerSelector",
    "Method",
    "MethodCode",
    "Options",
    "Packing",
    "Quantizer",
    "SkipLayer",
    "Transform",
    "hookimpl",
    "index_bits",
    "stored_bits",
]

"""A plugin that works, and the type of the fixture that installs plugins."""

from collections.abc import Callable
from importlib.metadata import EntryPoint

GOOD = """
import torch
from vqzoo.plugin import Code, Floats, Quantizer, hookimpl

class Whole(Quantizer):
    name = "{method}"
    def quantize(self, weight, options, context):
        return Code(tuple(weight.shape), {{"values": Floats.of(weight)}})
    def reconstruct(self, code, params):
        return params["values"]

@hookimpl
def vqzoo_quantizers():
    return [Whole()]
"""

Install = Callable[..., list[EntryPoint]]

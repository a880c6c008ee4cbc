"""The plugin contract: everything that a plugin author imports.

The names below are imported on first use, so that modules beside them, such as
`vqzoo.plugin.limits`, load without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqzoo.plugin.code import Code, Floats, Indices, MethodCode, index_bits, stored_bits
    from vqzoo.plugin.contract import CONTRACT_VERSION
    from vqzoo.plugin.execution.engine import CallResources, Engine, WorkerLost
    from vqzoo.plugin.formats.importer import ImportedNetwork, Importer, ImportTarget
    from vqzoo.plugin.formats.weight_form import LookUp, TwoFactors, WeightForm
    from vqzoo.plugin.hookspecs import hookimpl
    from vqzoo.plugin.method import LayerContext, Method, Options, SkipLayer
    from vqzoo.plugin.packing import Packing
    from vqzoo.plugin.quantizer import Quantizer
    from vqzoo.plugin.second_order import SecondOrder
    from vqzoo.plugin.selector import LayerInfo, LayerSelector
    from vqzoo.plugin.transform import Transform

_MODULES = {
    "code": ("Code", "Floats", "Indices", "MethodCode", "index_bits", "stored_bits"),
    "contract": ("CONTRACT_VERSION",),
    "execution.engine": ("CallResources", "Engine", "WorkerLost"),
    "formats.weight_form": ("LookUp", "TwoFactors", "WeightForm"),
    "hookspecs": ("hookimpl",),
    "formats.importer": ("ImportTarget", "ImportedNetwork", "Importer"),
    "method": ("LayerContext", "Method", "Options", "SkipLayer"),
    "packing": ("Packing",),
    "quantizer": ("Quantizer",),
    "second_order": ("SecondOrder",),
    "selector": ("LayerInfo", "LayerSelector"),
    "transform": ("Transform",),
}
_HOMES = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}

__all__ = [
    "CONTRACT_VERSION",
    "CallResources",
    "Code",
    "Engine",
    "Floats",
    "ImportTarget",
    "ImportedNetwork",
    "Importer",
    "Indices",
    "LayerContext",
    "LayerInfo",
    "LayerSelector",
    "LookUp",
    "Method",
    "MethodCode",
    "Options",
    "Packing",
    "Quantizer",
    "SecondOrder",
    "SkipLayer",
    "Transform",
    "TwoFactors",
    "WeightForm",
    "WorkerLost",
    "hookimpl",
    "index_bits",
    "stored_bits",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])

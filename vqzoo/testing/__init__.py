"""The conformance kit: checks of the plugin contract, each one line in a plugin's tests.

The names below are imported on first use: a process that runs a call of `check_engine` imports this
package, and need not load torch for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqzoo.testing.broken import ContractBroken
    from vqzoo.testing.engine import check_engine
    from vqzoo.testing.importer import check_importer
    from vqzoo.testing.packing import check_packing
    from vqzoo.testing.quantizer import check_quantizer
    from vqzoo.testing.selector import check_selector
    from vqzoo.testing.transform import check_transform

_MODULES = {
    "ContractBroken": "broken",
    "check_engine": "engine",
    "check_importer": "importer",
    "check_packing": "packing",
    "check_quantizer": "quantizer",
    "check_selector": "selector",
    "check_transform": "transform",
}

__all__ = [
    "ContractBroken",
    "check_engine",
    "check_importer",
    "check_packing",
    "check_quantizer",
    "check_selector",
    "check_transform",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])

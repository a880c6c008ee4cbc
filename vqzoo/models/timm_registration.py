"""vqzoo's architectures become known to timm whichever of the two is imported first."""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_MODULES = ("vqzoo.models.alexnet", "vqzoo.models.alexnet_mini")


def register_with_timm() -> None:
    """Register now where timm has been imported, else as soon as it is.

    timm takes a second or two to import; `import vqzoo` does not wait for it.
    """
    if "timm" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _TimmFinder())


def _register() -> None:
    if not any(name in sys.modules for name in _MODULES):  # one of them may be what wants timm
        for name in _MODULES:
            import_module(name)


class _TimmFinder(MetaPathFinder):
    """Stands aside once timm is asked for."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """timm's own spec, with a loader that registers behind it."""
        if fullname != "timm":
            return None
        sys.meta_path.remove(self)
        spec = find_spec("timm")
        if spec is not None and spec.loader is not None:
            spec.loader = _TimmLoader(spec.loader)
        return spec


class _TimmLoader(Loader):
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        _register()

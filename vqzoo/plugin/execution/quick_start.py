"""Starts processes sooner: what those that belong to vqzoo do before they import torch and timm."""

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import find_spec
from types import ModuleType
from typing import Any

# Container objects between two collections. torch and timm bring half a million that never become
# garbage: with Python's 700, visiting them takes a fifth of the time of their import.
_GARBAGE_THRESHOLD = 10_000

_COMPILER = "torch._dynamo.utils"


def start_quickly() -> None:
    """Prepare a process that nobody else's code shares, before it imports torch or timm.

    The garbage collector visits what they bring less often, and timm does not import the compiler
    of `torch.compile`, which vqzoo does not use: 0.6 s and 140 MB. Whatever asks for the compiler
    later imports it then.
    """
    gc.set_threshold(_GARBAGE_THRESHOLD)
    if "timm" not in sys.modules:
        sys.meta_path.insert(0, _FindsTimm())


class _FindsTimm(MetaPathFinder):
    """Finds timm where it is, once, and lets it be imported without the compiler."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "timm":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _LoadsWithoutCompiler(spec.loader.name, spec.loader.path)
        return spec


class _LoadsWithoutCompiler(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        with _compiler_imported_on_use():
            super().exec_module(module)


@contextmanager
def _compiler_imported_on_use() -> Iterator[None]:
    """Postpone the import of torch._dynamo, for which two lines that timm imports are to blame.

    A decorator of timm's, `torch.compiler.disable`, imports it at once; torch's own modules use
    one that imports it at the first call. torchvision's `roi_align` takes a function from
    torch._dynamo.utils that only operators call which vqzoo does not run.
    """
    import torch._compile
    import torch.compiler

    disable_at_first_call = getattr(torch._compile, "_disable_dynamo", None)
    if disable_at_first_call is None or _COMPILER in sys.modules:
        yield
        return
    disable = torch.compiler.disable

    def disable_on_use(fn: Any = None, recursive: bool = True, **further: Any) -> Any:
        return disable_at_first_call(fn, recursive)  # `further` is a reason, for logs

    sys.modules[_COMPILER] = stand_in = _stand_in()
    torch.compiler.disable = disable_on_use
    try:
        yield
    finally:
        torch.compiler.disable = disable
        if sys.modules.get(_COMPILER) is stand_in:
            del sys.modules[_COMPILER]


def _stand_in() -> ModuleType:
    """A module that is replaced by the compiler's as soon as anything else of it is needed."""
    module = ModuleType(_COMPILER)

    def genuine(name: str) -> Any:
        if name.startswith("__"):  # `inspect` looks at all modules
            raise AttributeError(name)
        if sys.modules.get(_COMPILER) is module:
            del sys.modules[_COMPILER]
        return getattr(import_module(_COMPILER), name)

    def is_compile_supported(*arguments: Any) -> Any:
        supported: Callable[..., Any] = genuine("is_compile_supported")
        return supported(*arguments)

    vars(module).update(is_compile_supported=is_compile_supported, __getattr__=genuine)
    return module

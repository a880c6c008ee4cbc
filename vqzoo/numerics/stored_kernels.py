"""Loads kernels that numba has stored, without preparing numba to compile.

numba's own `FunctionCache` refreshes the compiler's context before it loads a function: it imports
what implements every function that kernels may call, and compiles its runtime with LLVM. It then
parses the function's bitcode, for callers that it may compile, and generates code for an empty
module. A process that finds all its kernels stored needs none of this, which saves it 0.3 s and
50 MB. A kernel that is not stored refreshes the context when numba compiles it, and those that it
calls are then loaded as numba does.
"""

import ctypes
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numba
from llvmlite import binding
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.runtime import _nrt_python

from vqzoo.numerics.machine_code import LinkError, can_link, link, used_symbols

FIRST_TESTED = (0, 61)
LAST_TESTED = (0, 68)


def can_load_alone() -> bool:
    """Whether the tests have run with this numba.

    LLVM aborts where numba's engine loads a kernel that needs a symbol which LLVM lacks.
    """
    return FIRST_TESTED <= numba.version_info.short <= LAST_TESTED


def store(dispatcher: Any, kernel: Callable[..., Any]) -> None:
    """Make numba's `dispatcher` of a kernel load its machine code from files, and write it there.

    Raises:
        RuntimeError: numba finds no folder to write to.
    """
    if can_load_alone():
        dispatcher._cache = StoredKernels(kernel)  # as Dispatcher.enable_caching does
    else:
        dispatcher.enable_caching()


class _Rebuilding(CompileResultCacheImpl):
    """Makes kernels of what numba has stored of them."""

    def reduce(self, result: Any) -> Any:
        """What numba stores, without environments that the machine code never reads: to restore
        one, numba imports its module, and those of its own functions take megabytes."""
        payload = super().reduce(result)
        if not can_link():
            return payload
        (_, _, (image, _)), *rest, environments = payload
        used = used_symbols(image)
        return payload[0], *rest, tuple(each for each in environments if each.env_name in used)

    def rebuild(self, target_context: Any, payload: Any) -> Any:
        load = cache(partial(super().rebuild, target_context, payload))
        if not can_link():
            return load()
        try:
            linked = super().rebuild(_LinkingContext(target_context, load), payload)
        except LinkError:  # the preparations may define what is missing
            target_context.refresh()
            return load()
        return linked._replace(target_context=target_context)


class _LinkingContext:
    """numba's context, with a linker in the place of its generator of code.

    Args:
        context: numba's own.
        load: makes the kernel in numba's way, once.
    """

    def __init__(self, context: Any, load: Callable[[], Any]) -> None:
        self._context, self._load = context, load

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def codegen(self) -> "_LinkingContext":
        return self

    def unserialize_library(self, stored: tuple[str, str, tuple[bytes, bytes]]) -> "_Library":
        _, _, (image, _) = stored
        return _Library(link(image), self._load)


class _Library:
    """The machine code of a kernel, and all of it that calls from Python need.

    Once numba compiles a caller, it asks for more: its own library is loaded then, and answers.

    Args:
        addresses: of functions and variables, by name.
        load: makes the kernel in numba's way, once.
    """

    def __init__(self, addresses: Any, load: Callable[[], Any]) -> None:
        self._addresses, self._load = addresses, load

    def get_pointer_to_function(self, name: str) -> int:
        try:
            return int(self._addresses[name])
        except KeyError:
            return 0  # as numba's own

    @property
    def codegen(self) -> "_Library":
        return self

    def set_env(self, name: str, environment: Any) -> None:
        """Write where numba's `environment` is into the variable of that name."""
        ctypes.c_void_p.from_address(self._addresses[name]).value = id(environment)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._load().library, name)


class StoredKernels(FunctionCache):
    """The machine code of one kernel in files, by the types of its arguments."""

    _impl_class = _Rebuilding

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        _name_runtime()
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)
        return None  # the guard swallows an error of a file that another process holds


@cache
def _name_runtime() -> None:
    """Tell LLVM the addresses of the functions of numba's runtime, which are C, as `NRT_` names."""
    for name, address in _nrt_python.c_helpers.items():
        binding.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)

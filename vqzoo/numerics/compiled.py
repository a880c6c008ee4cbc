"""Compiles the CPU kernels with numba, and caches the machine code where it can."""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

from numba import config, njit

from vqzoo.errors import KernelCacheWarning
from vqzoo.numerics.stored_kernels import store

Decorator = Callable[[Callable[..., Any]], Any]


def compiled(**options: Any) -> Decorator:
    """Decorate a kernel: numba compiles it at its first call, and it runs without the GIL.

    The machine code is cached beside the source, in the user's cache folder, or in
    `NUMBA_CACHE_DIR`. If none of them is writable, as in a container under an arbitrary user id,
    each process compiles its kernels anew, and one `KernelCacheWarning` says so.

    Args:
        options: further options of `numba.njit`.
    """

    def decorate(kernel: Callable[..., Any]) -> Any:
        dispatcher = njit(nogil=True, **options)(kernel)
        if config.DISABLE_JIT:
            return dispatcher
        try:
            store(dispatcher, kernel)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
            _warn_once()
        return dispatcher

    return decorate


@cache
def _warn_once() -> None:
    warnings.warn(
        "compiled kernels cannot be cached, because no cache folder is writable, so each process "
        "compiles them anew, which can take a minute: set NUMBA_CACHE_DIR to a writable folder",
        KernelCacheWarning,
        stacklevel=4,
    )

"""What the C library does with memory that loading and forward passes free."""

import ctypes
import sys

_BLOCK = 31 << 20  # bytes; glibc adapts to blocks of up to 32 MiB


def keep_freed_memory() -> None:
    """Make glibc keep up to 62 MiB of freed memory, for the next forward pass.

    It gives freed memory back to the system once there is twice as much of it as in the largest
    block that was ever freed (mallopt(3), M_MMAP_THRESHOLD), and the system clears every page anew
    when the next pass needs it. Dense weights are such blocks, but a network that runs from codes
    has none. This frees one that nothing was written to, and that takes no memory therefore.
    Variables such as `MALLOC_TRIM_THRESHOLD_`, where they are set, take precedence.
    """
    library = _glibc()
    if library is not None:
        library.malloc.argtypes, library.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
        library.free.argtypes, library.free.restype = [ctypes.c_void_p], None
        library.free(library.malloc(_BLOCK))


def give_back_freed_memory() -> None:
    """Make glibc give the pages of freed memory back to the system."""
    library = _glibc()
    if library is not None:
        library.malloc_trim.argtypes = [ctypes.c_size_t]
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None

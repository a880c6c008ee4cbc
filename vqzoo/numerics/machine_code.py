"""Links object files into this process with LLVM's linker, without any of its code generators."""

import itertools
import platform
import struct
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

from llvmlite import binding

_ELF64_LITTLE_ENDIAN = b"\x7fELF\x02\x01"
_SYMBOL_TABLE = 2  # a section's type (elf(5), SHT_SYMTAB)
_LOCAL = 0  # a symbol's binding (STB_LOCAL)
_numbers = itertools.count()


def can_link() -> bool:
    """Whether the tests have linked object files on systems such as this one."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


class LinkError(Exception):
    """An object file that does not fit this process."""


def link(image: bytes) -> Any:
    """Link an object file, and keep it in memory for as long as the result is referenced.

    Args:
        image: the bytes of a relocatable ELF file for this machine.

    Returns:
        name -> address of the global symbols that the file defines.

    Raises:
        LinkError: the file is of another kind, or needs a symbol that this process lacks.
    """
    builder = binding.JITLibraryBuilder().add_object_img(image)
    for name, is_defined in _global_symbols(image):
        if is_defined:
            builder.export_symbol(name)
        else:
            builder.import_symbol(name, _address(name))
    try:
        return builder.link(_linker(), f"vqzoo.{next(_numbers)}")
    except RuntimeError as error:
        raise LinkError(str(error)) from error


@cache
def _linker() -> Any:
    return binding.create_lljit_compiler(suppress_errors=True)


def _address(name: str) -> int:
    """The address of a function or variable of this process.

    Raises:
        LinkError: LLVM does not know it.
    """
    address = binding.address_of_symbol(name)
    if address is None:
        raise LinkError(f"this process has no symbol {name}")
    return int(address)


def _global_symbols(image: bytes) -> Iterator[tuple[str, bool]]:
    """The names of an ELF file's global symbols (elf(5)), and whether it defines them.

    Raises:
        LinkError: the bytes are none of a little-endian 64-bit ELF file.
    """
    if not image.startswith(_ELF64_LITTLE_ENDIAN):
        raise LinkError("not a little-endian 64-bit ELF file")
    (offset,) = struct.unpack_from("<Q", image, 0x28)
    size, count = struct.unpack_from("<HH", image, 0x3A)
    headers = [
        struct.unpack_from("<4xI16xQQI", image, offset + size * index) for index in range(count)
    ]
    for kind, start, length, strings in headers:
        if kind != _SYMBOL_TABLE:
            continue
        for name, info, section in struct.iter_unpack("<IBxH16x", image[start : start + length]):
            if info >> 4 != _LOCAL:
                first = headers[strings][1] + name
                yield image[first : image.index(b"\0", first)].decode(), section != 0

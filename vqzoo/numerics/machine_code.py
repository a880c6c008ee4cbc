"""Links object files into this process with LLVM's linker, without any of its code generators."""

import itertools
import platform
import struct
import sys
from functools import cache
from typing import Any, NamedTuple

from llvmlite import binding

_ELF64_LITTLE_ENDIAN = b"\x7fELF\x02\x01"
_SYMBOL_TABLE = 2  # a section's type (elf(5), SHT_SYMTAB)
_RELOCATIONS = 4  # likewise (SHT_RELA)
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
    for symbol in _symbols(image, _sections(image)):
        if symbol.is_global and symbol.is_defined:
            builder.export_symbol(symbol.name)
        elif symbol.is_global:
            builder.import_symbol(symbol.name, _address(symbol.name))
    try:
        return builder.link(_linker(), f"vqzoo.{next(_numbers)}")
    except RuntimeError as error:
        raise LinkError(str(error)) from error


def used_symbols(image: bytes) -> set[str]:
    """The names of the symbols whose addresses an object file needs, its own included.

    Raises:
        LinkError: the file is of another kind.
    """
    sections = _sections(image)
    symbols = _symbols(image, sections)
    tables = [_content(image, section) for section in sections if section.kind == _RELOCATIONS]
    return {symbols[i].name for table in tables for (i,) in struct.iter_unpack("<12xI8x", table)}


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


class _Symbol(NamedTuple):
    name: str
    is_global: bool
    is_defined: bool


class _Section(NamedTuple):
    kind: int
    start: int
    length: int
    linked: int


def _symbols(image: bytes, sections: list[_Section]) -> list[_Symbol]:
    """The symbols of an ELF file, in its order."""
    symbols = []
    for section in sections:
        if section.kind == _SYMBOL_TABLE:
            names = sections[section.linked].start
            for name, info, place in struct.iter_unpack("<IBxH16x", _content(image, section)):
                first = names + name
                text = image[first : image.index(b"\0", first)].decode()
                symbols.append(_Symbol(text, info >> 4 != _LOCAL, place != 0))
    return symbols


def _sections(image: bytes) -> list[_Section]:
    """The sections of an ELF file (elf(5)).

    Raises:
        LinkError: the bytes are none of a little-endian 64-bit ELF file.
    """
    if not image.startswith(_ELF64_LITTLE_ENDIAN):
        raise LinkError("not a little-endian 64-bit ELF file")
    (offset,) = struct.unpack_from("<Q", image, 0x28)
    size, count = struct.unpack_from("<HH", image, 0x3A)
    places = range(offset, offset + size * count, size)
    return [_Section(*struct.unpack_from("<4xI16xQQI", image, place)) for place in places]


def _content(image: bytes, section: _Section) -> bytes:
    return image[section.start : section.start + section.length]

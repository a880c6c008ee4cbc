"""Codes as they are kept in memory while a network runs from them."""

from dataclasses import replace

from vqzoo.plugin.code import Indices, MethodCode, Part
from vqzoo.plugin.formats.packed_indices import packed_indices
from vqzoo.plugin.isolation import isolated, named
from vqzoo.plugin.manager import Plugins


def packed(compressed: MethodCode, plugins: Plugins) -> MethodCode:
    """A code whose integers of up to four bits share bytes, those of children included."""
    code, entry = compressed.code, plugins.method(compressed.method)
    with isolated(named(entry)):
        axis = entry.item.packing_axis(code)
    parts: dict[str, Part] = {
        name: packed_indices(part, axis if _has_axis(part, axis) else -1)
        if isinstance(part, Indices)
        else part
        for name, part in code.parts.items()
    }
    children = {name: packed(child, plugins) for name, child in code.children.items()}
    return replace(compressed, code=replace(code, parts=parts, children=children))


def unpacked(compressed: MethodCode) -> MethodCode:
    """The code that `packed` packed."""
    code = compressed.code
    parts: dict[str, Part] = {
        name: part.as_read() if isinstance(part, Indices) else part
        for name, part in code.parts.items()
    }
    children = {name: unpacked(child) for name, child in code.children.items()}
    return replace(compressed, code=replace(code, parts=parts, children=children))


def _has_axis(part: Indices, axis: int) -> bool:
    return -part.values.dim() <= axis < part.values.dim()

"""Codes that no method of this process made: an importer read them from another library's file."""

from dataclasses import replace

from vqzoo.compression.check import check_code, check_code_count
from vqzoo.errors import PluginError
from vqzoo.plugin.code import Floats, MethodCode, Part
from vqzoo.plugin.isolation import isolated
from vqzoo.plugin.manager import Plugins


def accepted(
    compressed: object, shape: tuple[int, int], plugins: Plugins, who: str, weights: int
) -> MethodCode:
    """A code of a registered method, checked as that method's own codes are, children first, with
    its parts as reading an artifact returns them.

    Args:
        compressed: what a plugin gave as a `MethodCode`.
        shape: (m, n) of the matrix.
        plugins: the installed methods.
        who: the importer and the layer, for error messages.
        weights: number of weights of the layer.

    Raises:
        UsageError: no such method is installed.
        PluginError: the code breaks the contract.
    """
    if not isinstance(compressed, MethodCode):
        raise PluginError(f"{who} returned a {type(compressed).__name__}, not a MethodCode")
    entry, code = plugins.method(compressed.method), compressed.code
    with isolated(who):
        check_code(code, shape, entry.item, who)
    check_code_count(code, weights, who)
    children = {
        name: accepted(child, child.code.shape, plugins, f"{who}, child {name!r}", weights)
        for name, child in code.children.items()
    }
    parts = {name: _own(part) for name, part in code.parts.items()}
    return MethodCode(plugins.method_name(entry), replace(code, parts=parts, children=children))


def _own(part: Part) -> Part:
    """The part as reading returns it, and floats in memory of their own: layers of another
    library's file may share a codebook, which an artifact stores for each of them."""
    part = part.as_read()
    return replace(part, stored=part.stored.clone()) if isinstance(part, Floats) else part

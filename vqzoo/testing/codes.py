"""Compare codes, and move them to another device."""

import torch

from vqzoo.plugin.code import Code, Floats, Indices, MethodCode, Part


def same_code(first: MethodCode, second: MethodCode) -> bool:
    """Check whether two codes are equal bit for bit, children included."""
    a, b = first.code, second.code
    return (
        (_bare_name(first), a.shape, dict(a.facts)) == (_bare_name(second), b.shape, dict(b.facts))
        and set(a.parts) == set(b.parts)
        and set(a.children) == set(b.children)
        and all(_same_part(a.parts[name], b.parts[name]) for name in a.parts)
        and all(same_code(a.children[name], b.children[name]) for name in a.children)
    )


def code_to(compressed: MethodCode, device: torch.device) -> MethodCode:
    """The same code with its tensors on another device."""
    code = compressed.code
    parts = {name: _part_to(part, device) for name, part in code.parts.items()}
    children = {name: code_to(child, device) for name, child in code.children.items()}
    return MethodCode(compressed.method, Code(code.shape, parts, code.facts, children))


def _bare_name(compressed: MethodCode) -> str:
    """The method's name without the distribution that an artifact puts before it."""
    return compressed.method.rpartition(":")[2]


def _same_part(first: Part, second: Part) -> bool:
    if isinstance(first, Indices) and isinstance(second, Indices):
        same = first.cardinality == second.cardinality
        return same and torch.equal(first.values.long(), second.values.long())
    if isinstance(first, Floats) and isinstance(second, Floats):
        same = (first.exponent, first.dtype) == (second.exponent, second.dtype)
        return same and torch.equal(first.stored, second.stored)
    return False


def _part_to(part: Part, device: torch.device) -> Part:
    if isinstance(part, Indices):
        return Indices(part.values.to(device), part.cardinality)
    return Floats(part.stored.to(device), part.exponent)

"""Codes back to matrices, children first.

What a plugin lets escape on the way is raised as a `PluginError` that names it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from vqzoo.plugin.code import Code, Floats, MethodCode, Part
from vqzoo.plugin.isolation import isolated, named
from vqzoo.plugin.manager import Plugins


def decode(
    compressed: MethodCode,
    plugins: Plugins,
    out: Tensor | None = None,
    params: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """The float32 (m, n) matrix that a code stands for, written into `out` where it is given.

    `params` replaces any of `trainable`'s tensors.
    """

    def rebuild(child: MethodCode, inner: Mapping[str, Tensor]) -> Tensor:
        return decode(child, plugins, params=inner)

    merged = _merged(compressed.code, params or {}, rebuild)
    entry = plugins.method(compressed.method)
    with isolated(named(entry)):
        matrix = entry.item.decode(compressed.code, merged, out)
    return matrix if out is None or matrix is out else out.copy_(matrix)


def reconstruct(compressed: MethodCode, params: Mapping[str, Tensor], plugins: Plugins) -> Tensor:
    """`decode` in differentiable torch, with `trainable`'s tensors replaced by `params`."""
    merged = _merged(compressed.code, params, partial(reconstruct, plugins=plugins))
    entry = plugins.method(compressed.method)
    with isolated(named(entry)):
        return entry.item.reconstruct(compressed.code, merged)


def apply(
    compressed: MethodCode, params: Mapping[str, Tensor], plugins: Plugins, x: Tensor
) -> Tensor:
    """x (..., n) times the matrix, (..., m), by the method's `apply`; differentiable.

    Raises:
        RuntimeError: x has another width, as torch's own layers raise it.
    """
    n = compressed.code.shape[1]
    if x.shape[-1] != n:
        raise RuntimeError(f"the layer takes inputs of {n} values, not of {x.shape[-1]}")
    merged = _merged(compressed.code, params, partial(reconstruct, plugins=plugins))
    entry = plugins.method(compressed.method)
    with isolated(named(entry)):
        return entry.item.apply(compressed.code, merged, x)


def trainable(compressed: MethodCode, plugins: Plugins) -> dict[str, Tensor]:
    """What fine-tuning may change, children included under `child.part`."""
    code = compressed.code
    entry = plugins.method(compressed.method)
    with isolated(named(entry)):
        tensors = dict(entry.item.trainable(code))
    for name, child in code.children.items():
        for part, tensor in trainable(child, plugins).items():
            tensors[f"{name}.{part}"] = tensor
    return tensors


def retuned(compressed: MethodCode, params: Mapping[str, Tensor]) -> MethodCode:
    """A code with float parts changed, rounded to the storage dtypes that they had.

    Args:
        compressed: the code that was tuned.
        params: new values for any of `trainable`'s tensors, under the same names.

    Raises:
        ValueError: a name that is no float part, or values of another shape.
    """
    parts, children = dict(compressed.code.parts), dict(compressed.code.children)
    inner: dict[str, dict[str, Tensor]] = {}
    for name, values in params.items():
        child, _, rest = name.partition(".")
        if rest and child in children:
            inner.setdefault(child, {})[rest] = values
            continue
        part = parts.get(name)
        if not isinstance(part, Floats):
            raise ValueError(f"{name!r} is no float part of {compressed.method}")
        if values.shape != part.stored.shape:
            raise ValueError(f"{name!r} has the shape {tuple(part.stored.shape)}")
        parts[name] = part.rounded(values.detach())
    for child, values_of in inner.items():
        children[child] = retuned(children[child], values_of)
    return replace(compressed, code=replace(compressed.code, parts=parts, children=children))


def moved(compressed: MethodCode, device: torch.device) -> MethodCode:
    """A code with its tensors on `device`."""
    code = compressed.code
    parts: dict[str, Part] = {}
    for name, part in code.parts.items():
        if isinstance(part, Floats):
            parts[name] = replace(part, stored=part.stored.to(device))
        else:
            parts[name] = replace(part, values=part.values.to(device))
    children = {name: moved(child, device) for name, child in code.children.items()}
    return replace(compressed, code=replace(code, parts=parts, children=children))


def _merged(
    code: Code,
    params: Mapping[str, Tensor],
    rebuild: Callable[[MethodCode, Mapping[str, Tensor]], Tensor],
) -> dict[str, Tensor]:
    """A method's `params`: the code's floats but where others are given, and children rebuilt."""
    merged = {**code.floats(), **{n: v for n, v in params.items() if n in code.parts}}
    for name, child in code.children.items():
        prefix = name + "."
        inner = {k.removeprefix(prefix): v for k, v in params.items() if k.startswith(prefix)}
        merged[name] = rebuild(child, inner)
    return merged

"""Decode codes to matrices, children first.

Exceptions that escape from a plugin are raised as a `PluginError` that names it.
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
    """Decode a code.

    Args:
        compressed: the code, and the name of its method.
        plugins: the installed methods.
        out: float32 (m, n) memory to decode into; allocated unless given.
        params: replacements for any of the tensors of `trainable`, by name.

    Returns:
        The (m, n) float32 matrix; `out` if it is given.
    """

    def rebuild(child: MethodCode, inner: Mapping[str, Tensor]) -> Tensor:
        return decode(child, plugins, params=inner)

    merged = _merged(compressed.code, params or {}, rebuild)
    entry = plugins.method(compressed.method)
    with isolated(named(entry)):
        matrix = entry.item.decode(compressed.code, merged, out)
    return matrix if out is None or matrix is out else out.copy_(matrix)


def reconstruct(compressed: MethodCode, params: Mapping[str, Tensor], plugins: Plugins) -> Tensor:
    """`decode` in differentiable torch, with the tensors of `trainable` replaced by `params`."""
    merged = _merged(compressed.code, params, partial(reconstruct, plugins=plugins))
    entry = plugins.method(compressed.method)
    with isolated(named(entry)):
        return entry.item.reconstruct(compressed.code, merged)


def apply(
    compressed: MethodCode, params: Mapping[str, Tensor], plugins: Plugins, x: Tensor
) -> Tensor:
    """Multiply x by the matrix with the method's `apply`; differentiable.

    Args:
        compressed: the code of an (m, n) matrix.
        params: replacements for any of the tensors of `trainable`, by name.
        plugins: the installed methods.
        x: float32, (..., n).

    Returns:
        x·Wᵀ, (..., m).

    Raises:
        RuntimeError: x has another width, as in torch's own layers.
    """
    n = compressed.code.shape[1]
    if x.shape[-1] != n:
        raise RuntimeError(f"the layer takes inputs of {n} values, not of {x.shape[-1]}")
    merged = _merged(compressed.code, params, partial(reconstruct, plugins=plugins))
    entry = plugins.method(compressed.method)
    with isolated(named(entry)):
        return entry.item.apply(compressed.code, merged, x)


def with_floats(compressed: MethodCode, params: Mapping[str, Tensor]) -> MethodCode:
    """A code with float parts replaced, exactly, by tensors of `trainable`; children keep theirs.

    Args:
        compressed: the code.
        params: float32, by name.
    """
    parts: dict[str, Part] = {
        name: Floats(params[name].detach()) for name in params if name in compressed.code.parts
    }
    code = replace(compressed.code, parts={**compressed.code.parts, **parts})
    return replace(compressed, code=code)


def trainable(compressed: MethodCode, plugins: Plugins) -> dict[str, Tensor]:
    """The tensors that fine-tuning may change, by name; those of children as `child.part`."""
    code = compressed.code
    entry = plugins.method(compressed.method)
    with isolated(named(entry)):
        tensors = dict(entry.item.trainable(code))
    for name, child in code.children.items():
        for part, tensor in trainable(child, plugins).items():
            tensors[f"{name}.{part}"] = tensor
    return tensors


def retuned(compressed: MethodCode, params: Mapping[str, Tensor]) -> MethodCode:
    """A code with new values in float parts, rounded to their storage dtypes.

    Args:
        compressed: the code that was fine-tuned.
        params: new values for any of the tensors of `trainable`, by name.

    Raises:
        ValueError: a name is not that of a float part, or values have another shape.
    """
    parts, children = dict(compressed.code.parts), dict(compressed.code.children)
    inner: dict[str, dict[str, Tensor]] = {}
    for name, values in params.items():
        child, _, child_part = name.partition(".")
        if child_part and child in children:
            inner.setdefault(child, {})[child_part] = values
            continue
        part = parts.get(name)
        if not isinstance(part, Floats):
            raise ValueError(f"{name!r} is not a float part of {compressed.method}")
        if values.shape != part.stored.shape:
            raise ValueError(
                f"{name!r} must have shape {tuple(part.stored.shape)}, not {tuple(values.shape)}"
            )
        parts[name] = part.rounded(values.detach())
    for child, child_params in inner.items():
        children[child] = retuned(children[child], child_params)
    return replace(compressed, code=replace(compressed.code, parts=parts, children=children))


def moved(compressed: MethodCode, device: torch.device) -> MethodCode:
    """A code with its tensors on `device`."""
    code = compressed.code
    parts: dict[str, Part] = {name: part.to(device) for name, part in code.parts.items()}
    children = {name: moved(child, device) for name, child in code.children.items()}
    return replace(compressed, code=replace(code, parts=parts, children=children))


def _merged(
    code: Code,
    params: Mapping[str, Tensor],
    rebuild: Callable[[MethodCode, Mapping[str, Tensor]], Tensor],
) -> dict[str, Tensor]:
    """A method's `params`: the code's floats, replaced by those in `params`, and the children."""
    merged = code.floats(params)
    for name, child in code.children.items():
        prefix = name + "."
        inner = {k.removeprefix(prefix): v for k, v in params.items() if k.startswith(prefix)}
        merged[name] = rebuild(child, inner)
    return merged

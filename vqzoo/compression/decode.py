"""Decode codes to matrices, children first.

Exceptions that escape from a plugin are raised as a `PluginError` that names it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from vqzoo.plugin.code import Code, Floats, Indices, MethodCode, Part
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


def multiply(
    compressed: MethodCode, params: Mapping[str, Tensor], plugins: Plugins, x: Tensor
) -> Tensor | None:
    """Multiply x by the matrix with the method's `multiply`, without gradients.

    Args:
        compressed: the code of an (m, n) matrix, without children.
        params: replacements for any of the tensors of `trainable`, by name.
        plugins: the installed methods.
        x: float32, (..., n), on the device of the code.

    Returns:
        x·Wᵀ, (..., m); None where the method has no such product on this device, or the code has
        children or no integers.
    """
    code, entry = compressed.code, plugins.method(compressed.method)
    multiplies = entry.item.multiplies and x.device.type in entry.item.multiply_devices
    if code.children or not multiplies or x.shape[-1] != code.shape[1]:
        return None
    if not any(isinstance(part, Indices) for part in code.parts.values()):
        return None
    merged = code.floats(params)
    with isolated(named(entry)):
        rows = x.detach().reshape(-1, x.shape[-1]).contiguous()
        product = entry.item.multiply(code, merged, rows)
    return None if product is None else product.view(*x.shape[:-1], code.shape[0])


def row_step(compressed: MethodCode, plugins: Plugins) -> int:
    """The number of rows whose multiples `decode_rows` can begin and end at; 0 where it cannot."""
    entry = plugins.method(compressed.method)
    with isolated(named(entry)):
        return 0 if compressed.code.children else entry.item.row_step(compressed.code)


def decode_rows(
    compressed: MethodCode, plugins: Plugins, start: int, stop: int, out: Tensor | None = None
) -> Tensor:
    """Decode some rows of a code without children.

    Args:
        compressed: the code of an (m, n) matrix, whose `row_step` is not 0.
        plugins: the installed methods.
        start: the first row, a multiple of `row_step`.
        stop: the row behind the last one, a multiple of `row_step` or m.
        out: float32 (stop - start, n) memory to decode into; allocated unless given.

    Returns:
        (stop - start, n) float32; `out` if it is given.
    """
    entry = plugins.method(compressed.method)
    with isolated(named(entry)):
        part = entry.item.rows(compressed.code, start, stop)
        matrix = entry.item.decode(part, part.floats(), out)
    return matrix if out is None or matrix is out else out.copy_(matrix)


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

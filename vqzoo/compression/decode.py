"""Codes back to matrices, children first."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from vqzoo.plugin.code import Floats, MethodCode
from vqzoo.plugin.manager import Plugins


def decode(compressed: MethodCode, plugins: Plugins, out: Tensor | None = None) -> Tensor:
    """The float32 (m, n) matrix that a code stands for, written into `out` where it is given."""
    code = compressed.code
    params = code.floats()
    for name, child in code.children.items():
        params[name] = decode(child, plugins)
    matrix = plugins.method(compressed.method).item.decode(code, params, out)
    return matrix if out is None or matrix is out else out.copy_(matrix)


def trainable(compressed: MethodCode, plugins: Plugins) -> dict[str, Tensor]:
    """What fine-tuning may change, children included under `child.part`."""
    code = compressed.code
    tensors = dict(plugins.method(compressed.method).item.trainable(code))
    for name, child in code.children.items():
        for part, tensor in trainable(child, plugins).items():
            tensors[f"{name}.{part}"] = tensor
    return tensors


def reconstruct(
    compressed: MethodCode, params: Mapping[str, Tensor], plugins: Plugins
) -> torch.Tensor:
    """`decode` in differentiable torch, with `trainable`'s tensors replaced by `params`."""
    code = compressed.code
    merged = {**code.floats(), **{n: v for n, v in params.items() if n in code.parts}}
    for name, child in code.children.items():
        prefix = name + "."
        inner = {k.removeprefix(prefix): v for k, v in params.items() if k.startswith(prefix)}
        merged[name] = reconstruct(child, inner, plugins)
    return plugins.method(compressed.method).item.reconstruct(code, merged)


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

"""Codes back to matrices, children first."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vqzoo.plugin.code import MethodCode
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

"""Batch norms whose running statistics were folded into weight and bias."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vqzoo.plugin import ImportTarget


def unit_statistics(tensors: Mapping[str, Tensor], target: ImportTarget) -> dict[str, Tensor]:
    """Mean 0 and variance 1 for each batch norm that has a weight but no statistics.

    Both libraries whose files lack them leave these values, and the eps that their networks divide
    by as well: y = weight · x / sqrt(1 + eps) + bias.
    """
    added: dict[str, Tensor] = {}
    for path in target.norms:
        mean, var = f"{path}.running_mean", f"{path}.running_var"
        if f"{path}.weight" in tensors and mean in target.shapes and not {mean, var} & {*tensors}:
            added[mean] = torch.zeros(target.shapes[mean])
            added[var] = torch.ones(target.shapes[var])
    return added


def norm_after(key: str, target: ImportTarget) -> str | None:
    """The batch norm behind a layer in the network's order, before the next layer."""
    keys = list(target.shapes)
    for other in keys[keys.index(key) + 1 :]:
        if other in target.layers:
            return None
        path, _, field = other.rpartition(".")
        if path in target.norms and field == "weight":
            return path
    return None


def identity_norm(path: str, bias: Tensor, eps: float) -> dict[str, Tensor]:
    """A batch norm that adds a bias and does nothing else: it was folded into the layer before it.

    Its variance plus eps is 1 in float32, so that no value is rounded another time.
    """
    one, small = torch.ones_like(bias), torch.tensor(eps, dtype=torch.float32)
    var = one - small
    for candidate in (var, torch.nextafter(var, one), torch.nextafter(var, -one)):
        if bool((candidate + small == 1).all()):
            var = candidate
    values = {"weight": one, "bias": bias, "running_mean": one - one, "running_var": var}
    return {f"{path}.{field}": tensor for field, tensor in values.items()}

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

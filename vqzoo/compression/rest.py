"""Round what stays dense to float16 where that keeps its values."""

import copy
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vqzoo.artifact.rest import fits_float16


@dataclass(frozen=True)
class RoundedRest:
    """A network whose tensors that stay dense hold values of float16.

    Attributes:
        module: a copy; it shares the tensors that are not rounded with the original.
        keys: of the tensors that are rounded, in the order of the state dict.
        kept: keys of the float32 tensors that are not: float16 has no number as large as their
            largest value, or too few bits for it.
        error: the largest error of a value, as a share of its tensor's largest; at most 2^-11.
    """

    module: nn.Module
    keys: tuple[str, ...]
    kept: tuple[str, ...]
    error: float


def with_rounded_rest(model: nn.Module, replaced: Collection[str]) -> RoundedRest:
    """Round the float32 tensors of a state dict that compression does not replace.

    Args:
        model: it is not changed.
        replaced: keys of the compressed weights.
    """
    state: dict[str, Any] = model.state_dict(keep_vars=True)
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    compressed = {id(tensors[key]) for key in replaced}
    memo: dict[int, Any] = {id(tensor): tensor for tensor in tensors.values()}
    keys: list[str] = []
    kept: list[str] = []
    error = 0.0
    for key, tensor in tensors.items():
        if tensor.dtype != torch.float32 or id(tensor) in compressed:
            continue
        if not fits_float16(tensor):
            kept.append(key)
            continue
        keys.append(key)
        if memo[id(tensor)] is tensor:  # a tensor of several keys is rounded once
            rounded = tensor.detach().half().float()
            error = max(error, _relative_error(tensor.detach(), rounded))
            memo[id(tensor)] = _like(tensor, rounded)
    # What the memo has for an object takes the place of a copy, wherever the object is shared.
    return RoundedRest(copy.deepcopy(model, memo), tuple(keys), tuple(kept), error)


def _relative_error(values: Tensor, rounded: Tensor) -> float:
    largest = float(values.abs().max()) if values.numel() else 0.0
    return float((rounded - values).abs().max()) / largest if largest else 0.0


def _like(tensor: Tensor, values: Tensor) -> Tensor:
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(values, tensor.requires_grad)
    return values

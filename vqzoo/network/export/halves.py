"""float32 constants that exports store as float16, since that changes no value."""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, register_parametrization

from vqzoo.numerics.arrays import exact_half

_LEAST = 64  # elements of a tensor that is worth an operation


def stored_half(values: Tensor) -> Tensor | None:
    """A float32 tensor in float16, if that holds every value exactly and saves space."""
    if values.dtype != torch.float32 or values.numel() < _LEAST:
        return None
    return exact_half(values)


class HalfParameter(nn.Module):
    """Widens a parameter that is stored in float16."""

    def forward(self, stored: Tensor) -> Tensor:
        """The parameter in float32."""
        return stored.float()

    def right_inverse(self, parameter: Tensor) -> list[Tensor]:
        """What is stored; a list, as torch lets a single tensor keep its dtype alone."""
        return [parameter.half()]


def store_halves(model: nn.Module) -> None:
    """Store float32 parameters whose values float16 holds exactly as float16, in place."""
    for module in list(model.modules()):
        if isinstance(module, ParametrizationList):
            continue
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and stored_half(parameter.detach()) is not None:
                register_parametrization(module, name, HalfParameter(), unsafe=True)

"""The kernels of a device other than the CPU: Triton's where it is installed, else plain torch."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from vqzoo.numerics import torch_kernels
from vqzoo.numerics.scaled_points import ScaledPoints

_TRITON_DIMENSIONS = 32  # beyond, distances are matrix products, and torch's are best


@dataclass(frozen=True)
class Kernels:
    """The two steps of Lloyd's algorithm: see `torch_kernels` for what they do."""

    nearest: Callable[[ScaledPoints, Tensor, bool], tuple[Tensor, Tensor]]
    add_up: Callable[
        [ScaledPoints, Tensor | None, Tensor, int, torch_kernels.Part], tuple[Tensor, Tensor]
    ]


def has_triton(device: torch.device) -> bool:
    """Whether kernels for this device can be written in Triton, here and now."""
    return device.type == "cuda" and find_spec("triton") is not None


def kernels_for(device: torch.device, d: int) -> Kernels:
    """Those for points of d dimensions; Triton is imported where it is to be used, not before."""
    if d <= _TRITON_DIMENSIONS and has_triton(device):
        from vqzoo.numerics import triton_kernels

        return Kernels(triton_kernels.nearest, triton_kernels.add_up)
    return TORCH


TORCH = Kernels(torch_kernels.nearest, torch_kernels.add_up)

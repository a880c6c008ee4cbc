"""The kernels of a device other than the CPU: Triton's where they work, else plain torch."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from vqzoo.errors import VqzooWarning
from vqzoo.numerics.accelerated import torch_kernels
from vqzoo.numerics.accelerated.scaled_points import ScaledPoints, around_zero

_TRITON_DIMENSIONS = 32  # above, distances are matrix products, at which torch is best


@dataclass(frozen=True)
class Kernels:
    """The two steps of Lloyd's algorithm; `torch_kernels` specifies them."""

    nearest: Callable[[ScaledPoints, Tensor, bool], tuple[Tensor, Tensor]]
    add_up: Callable[
        [ScaledPoints, Tensor | None, Tensor, int, torch_kernels.Part], tuple[Tensor, Tensor]
    ]


@cache
def has_triton(device: torch.device) -> bool:
    """Whether Triton's kernels can be built and run on this device; tried once, on one point.

    Warns if Triton is installed but fails: the device may be too old, or a compiler may be missing.
    """
    if device.type != "cuda" or find_spec("triton") is None:
        return False
    try:
        from vqzoo.numerics.accelerated import triton_kernels

        origin = torch.zeros((1, 1, 1), device=device)
        triton_kernels.nearest(around_zero(origin), origin, True)
        torch.cuda.synchronize(device)
    except Exception as error:
        warnings.warn(
            f"Triton does not work on {device} ({type(error).__name__}: {error}): "
            "k-means runs in plain torch there, which is slower",
            VqzooWarning,
            stacklevel=2,
        )
        return False
    return True


def kernels_for(device: torch.device, d: int) -> Kernels:
    """The kernels for points of d dimensions. Triton is imported only where it is used."""
    if d <= _TRITON_DIMENSIONS and has_triton(device):
        from vqzoo.numerics.accelerated import triton_kernels

        return Kernels(triton_kernels.nearest, triton_kernels.add_up)
    return TORCH


TORCH = Kernels(torch_kernels.nearest, torch_kernels.add_up)

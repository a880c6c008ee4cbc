"""Statistics of batch norms, moved as far as compression has moved what reaches them."""

from typing import Any

from torch import Tensor, nn


def has_statistics(module: nn.Module) -> bool:
    """Whether a module is a batch norm with running statistics."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None


def move_statistics(norm: Any, dense: tuple[Tensor, Tensor], now: tuple[Tensor, Tensor]) -> None:
    """Let a batch norm return the means and variances that it returned in the dense network.

    Statistics of few images are a poor estimate of its own. How far the same images move them is a
    better one, since most of what is peculiar to these images cancels.

    Args:
        norm: it is changed in place.
        dense: mean and variance of what reached it, (channels,) each, in the dense network.
        now: the same, in the compressed network.
    """
    eps = norm.eps
    variance = norm.running_var.double() + eps
    moved = variance * (now[1] + eps) / (dense[1] + eps)
    distance = (dense[0] - norm.running_mean) * (moved / variance).sqrt()
    norm.running_mean.copy_(now[0] - distance)
    norm.running_var.copy_((moved - eps).clamp(min=0))

"""The optimizer and its learning-rate schedule."""

import math
from typing import Any

import torch
from torch import Tensor

from vqzoo.finetuning.settings import Finetuning
from vqzoo.finetuning.student import Student

_MOMENTUM = 0.9
_SMALLEST_SIZE = 1e-3  # as in Adafactor, so that a tensor of zeros can change


def make_optimizer(student: Student, settings: Finetuning) -> torch.optim.Optimizer:
    """Create Adam, or SGD with momentum 0.9, with learning rates relative to each tensor's size.

    The effect is that of dividing every tensor by its root mean square s before training: the
    learning rate is s · lr for Adam and s² · lr for SGD. Relative step sizes: Shazeer, Stern 2018,
    arXiv 1804.04235, section 8.
    """
    groups: list[dict[str, Any]] = []
    power = 1 if settings.optimizer == "adam" else 2
    for parameter in student.tensors.values():
        rate = settings.lr * _size(parameter) ** power
        groups.append({"params": [parameter], "lr": rate, "first_lr": rate})
    if settings.optimizer == "adam":
        return torch.optim.Adam(groups)
    return torch.optim.SGD(groups, lr=settings.lr, momentum=_MOMENTUM)


def set_rates(optimizer: torch.optim.Optimizer, done: float, warm: float = 1.0) -> None:
    """Set the learning rates: half a cosine from the initial rate down to 0.

    Args:
        optimizer: from `make_optimizer`.
        done: fraction of all steps that are done, 0 to 1.
        warm: a factor of all rates, below 1 while training warms up.
    """
    factor = warm * 0.5 * (1 + math.cos(math.pi * done))
    for group in optimizer.param_groups:
        group["lr"] = factor * group["first_lr"]


def _size(tensor: Tensor) -> float:
    """Root mean square of the values, at least `_SMALLEST_SIZE`."""
    values = tensor.detach().double()
    return max(_SMALLEST_SIZE, float(values.square().mean().sqrt()) if values.numel() else 0.0)

"""The optimizer, and the learning rate over time."""

import math
from typing import Any

import torch
from torch import Tensor

from vqzoo.finetuning.settings import Finetuning
from vqzoo.finetuning.student import Student

_MOMENTUM = 0.9
_SMALLEST_SIZE = 1e-3  # of a tensor, as in Adafactor: one that is zero must be able to move


def make_optimizer(student: Student, settings: Finetuning) -> torch.optim.Optimizer:
    """Adam or SGD with one group a tensor, whose rate is relative to the tensor's size.

    As if every tensor were divided by its root mean square s first: a step of Adam's then has the
    size s · lr, one along the gradient s² · lr. Relative step sizes: Shazeer, Stern 2018,
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


def set_rates(optimizer: torch.optim.Optimizer, done: float) -> None:
    """Half a cosine, from the first rate down to 0; `done` is the share of the steps done."""
    factor = 0.5 * (1 + math.cos(math.pi * done))
    for group in optimizer.param_groups:
        group["lr"] = factor * group["first_lr"]


def _size(tensor: Tensor) -> float:
    """Root mean square."""
    values = tensor.detach().double()
    return max(_SMALLEST_SIZE, float(values.square().mean().sqrt()) if values.numel() else 0.0)

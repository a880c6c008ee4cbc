"""Matrices of the shapes of well-known layers, with the statistics of trained weights."""

import numpy as np
import torch
from torch import Tensor

SHAPES = {
    "alexnet.fc6": (4096, 9216),
    "alexnet.fc7": (4096, 4096),
    "resnet50.conv3x3": (512, 4608),
    "vit_b.mlp": (3072, 768),
}


def weight(name: str) -> Tensor:
    """Laplace noise whose spread differs a little from row to row and from column to column."""
    rows, columns = SHAPES[name]
    random = np.random.default_rng(0)
    noise = random.laplace(0.0, 0.01, (rows, columns))
    spread = np.exp(0.2 * random.standard_normal((rows, 1)))
    spread = spread * np.exp(0.2 * random.standard_normal((1, columns)))
    return torch.from_numpy((noise * spread).astype(np.float32))

"""Compress one 4096 x 9216 layer by a method as `vqzoo run` does; prints the peak of memory.

In a process of its own: `python peak_of_method.py pq`. What is printed is how far the peak rose
above what was held when the weight was there and the kernels were compiled, over the weight's size.
"""

import sys

import torch
from report import PeakMemory
from torch import nn
from weights import weight

from vqzoo.compression.compress import compress_layer
from vqzoo.compression.progress import Silent
from vqzoo.compression.selection import MethodChoice, plan_layers
from vqzoo.compression.view import compressible_layers
from vqzoo.plugin.manager import installed_plugins


def compress(model: nn.Module, method: str) -> None:
    plugins = installed_plugins()
    layers, _ = compressible_layers(model)
    plans, _ = plan_layers(layers, ["dense"], MethodChoice(method, {}, None, ()), [], plugins)
    for plan in plans:
        compress_layer(model, plan, plugins, seed=0, device=torch.device("cpu"), progress=Silent())


def network(matrix: torch.Tensor) -> nn.Module:
    linear = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(matrix, requires_grad=False)
    return nn.Sequential(linear)


if __name__ == "__main__":
    matrix = weight("alexnet.fc6")
    compress(network(matrix[:256, :512].clone()), sys.argv[1])
    memory = PeakMemory()
    with memory:
        compress(network(matrix), sys.argv[1])
    print(memory.peak / (matrix.numel() * matrix.element_size()))

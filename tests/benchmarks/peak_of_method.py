"""Compress a layer by a method as `vqzoo run` does; prints the peak of memory.

In a process of its own: `python peak_of_method.py pq`, for 4096 x 9216 weights, or with one of the
names of `weights.SHAPES` behind it. What is printed is how far the peak rose above what was held
when the weight was there and the kernels were compiled, over the weight's size.
"""

import ctypes
import gc
import sys

import torch
from report import PeakMemory
from torch import nn
from weights import weight

from vqzoo.compression.layer import compress_layer
from vqzoo.compression.selection import MethodChoice, plan_layers
from vqzoo.compression.view import compressible_layers, layer_weight
from vqzoo.compression.work import LayerInput
from vqzoo.plugin.manager import installed_plugins
from vqzoo.progress import SilentProgress


def compress(model: nn.Module, method: str) -> None:
    plugins = installed_plugins()
    layers, _ = compressible_layers(model)
    plans, _ = plan_layers(layers, ["dense"], MethodChoice(method, {}, None, ()), [], plugins)
    for plan in plans:
        layer = LayerInput(plan, layer_weight(model, plan.layer.name), None, SilentProgress())
        compress_layer(layer, plugins=plugins, seed=0, device=torch.device("cpu"))


def network(matrix: torch.Tensor) -> nn.Module:
    linear = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(matrix, requires_grad=False)
    return nn.Sequential(linear)


def release() -> None:
    """Give free memory back to the system where the C library can: it counts as held before."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


if __name__ == "__main__":
    method = sys.argv[1]
    matrix = weight(sys.argv[2] if len(sys.argv) > 2 else "alexnet.fc6")
    # As large as it takes to compile what large layers take, on half of the rows.
    compress(network(matrix[: len(matrix) // 2].clone()), method)
    release()
    memory = PeakMemory()
    with memory:
        compress(network(matrix), method)
    print(memory.peak / (matrix.numel() * matrix.element_size()))

"""A layer's weight as a matrix, and back."""

import torch
from torch import Tensor, nn

from vqzoo.plugin.selector import LayerInfo

_KINDS: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.Linear, "linear"),
    (nn.Conv1d, "conv1d"),
    (nn.Conv2d, "conv2d"),
)


def compressible_layers(model: nn.Module) -> tuple[list[LayerInfo], dict[str, str]]:
    """The Linear, Conv1d and Conv2d layers of a model, and why others with weights are passed over.

    A weight that several modules share is listed once, under its first name.
    """
    layers: list[LayerInfo] = []
    passed: dict[str, str] = {}
    owner: dict[int, str] = {}
    for name, module in model.named_modules():
        kind = next((kind for base, kind in _KINDS if isinstance(module, base)), None)
        if kind is None:
            continue
        weight = module._parameters.get("weight")
        if weight is None:
            passed[name] = "its weight is computed from other parameters"
        elif id(weight) in owner:
            passed[name] = f"shares the weight of {owner[id(weight)]}"
        elif not weight.dtype.is_floating_point:
            passed[name] = f"its weight is {weight.dtype}".replace("torch.", "")
        else:
            owner[id(weight)] = name
            groups = int(getattr(module, "groups", 1))
            layers.append(LayerInfo(name, kind, tuple(weight.shape), groups))
    return layers, passed


def weight_matrix(model: nn.Module, layer: LayerInfo, device: torch.device) -> Tensor:
    """The weight of `layer` as a contiguous float32 (m, n) matrix on `device`."""
    weight = model.get_parameter(weight_key(layer.name)).detach()
    return weight.to(device, torch.float32).reshape(layer.matrix_shape).contiguous()


def weight_key(layer: str) -> str:
    """Name of a layer's weight in the state dict; a model that is itself a layer has no path."""
    return f"{layer}.weight" if layer else "weight"


def layer_name(key: str) -> str:
    """Name of the layer that a key of `weight_key` belongs to."""
    return key.removesuffix("weight").removesuffix(".")

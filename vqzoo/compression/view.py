"""A layer's weight as a matrix, and back."""

import copy
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from vqzoo.plugin.limits import MAX_NAME_LENGTH
from vqzoo.plugin.selector import LayerInfo

_KINDS: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.Linear, "linear"),
    (nn.Conv1d, "conv1d"),
    (nn.Conv2d, "conv2d"),
)
_CLASSES = tuple(base for base, _ in _KINDS)
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def compressible_layers(model: nn.Module) -> tuple[list[LayerInfo], dict[str, str]]:
    """List the Linear, Conv1d and Conv2d layers of a model.

    A weight that several modules share is listed once, under its first name.

    Returns:
        The layers in the model's order, and name -> reason for whatever else holds matrices: layers
        that cannot be compressed, by their module path, and parameters that are no layer's weight,
        by their key in the state dict.
    """
    layers: list[LayerInfo] = []
    passed: dict[str, str] = {}
    first_name: dict[int, str] = {}
    for name, module in model.named_modules():
        kind = next((kind for base, kind in _KINDS if isinstance(module, base)), None)
        if kind is None:
            continue
        weight = module._parameters.get("weight")
        if weight is None:
            passed[name] = "its weight is computed from other parameters"
        elif id(weight) in first_name:
            passed[name] = f"shares the weight of {first_name[id(weight)]}"
        elif len(weight_key(name)) > MAX_NAME_LENGTH:
            passed[name] = f"its name has more than the {MAX_NAME_LENGTH} characters of a file's"
        elif (unusual := _unusual(weight)) is not None:
            passed[name] = f"its weight is {unusual}"
        else:
            first_name[id(weight)] = name
            groups = int(getattr(module, "groups", 1))
            layers.append(LayerInfo(name, kind, tuple(weight.shape), groups))
    return layers, passed | _other_matrices(model, first_name.keys(), passed)


def is_matrix(parameter: Tensor) -> bool:
    """Whether a parameter has two axes or more, not counting those of length 1."""
    return sum(size != 1 for size in parameter.shape) > 1


def _other_matrices(
    model: nn.Module, taken: Collection[int], passed: Mapping[str, str]
) -> dict[str, str]:
    """Name -> reason for matrices of modules that are neither compressible nor passed over.

    Args:
        model: the model.
        taken: ids of the weights that are listed.
        passed: module path -> reason of the layers that are passed over.
    """
    others: dict[str, str] = {}
    for name, parameter in model.named_parameters():
        path = name.rpartition(".")[0]
        owners = [path[:end] for end, letter in enumerate(path) if letter == "."] + [path]
        known = id(parameter) in taken or any(owner in passed for owner in owners)
        if known or not is_matrix(parameter):
            continue
        module = model.get_submodule(path)
        kind = type(module).__name__
        if any(module.children()) or isinstance(module, _CLASSES):
            others[name] = f"a parameter of {kind} that is no layer's weight"
        else:
            others[path] = f"{kind}, a kind that vqzoo does not compress"
    return others


def _unusual(weight: Tensor) -> str | None:
    """What keeps a weight from being read as a matrix of floats: its dtype, layout or class."""
    if weight.layout != torch.strided:
        return f"a {weight.layout} tensor".replace("torch.", "")
    if is_traceable_wrapper_subclass(weight.data):
        return f"a {type(weight.data).__name__}"
    return None if weight.dtype in _DTYPES else str(weight.dtype).removeprefix("torch.")


def weight_matrix(model: nn.Module, layer: LayerInfo, device: torch.device) -> Tensor:
    """The weight of `layer` as a contiguous float32 (m, n) matrix on `device`, not copied if it is
    one."""
    weight = model.get_parameter(weight_key(layer.name)).detach()
    return weight.to(device, torch.float32).reshape(layer.matrix_shape).contiguous()


def weight_key(layer: str) -> str:
    """The key of a layer's weight in the state dict; "" stands for a model that is one layer."""
    return f"{layer}.weight" if layer else "weight"


def layer_name(key: str) -> str:
    """The layer whose weight has this key; the inverse of `weight_key`."""
    return key.removesuffix("weight").removesuffix(".")


def copy_with_weights(model: nn.Module, matrices: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a model with other weights in some layers, whose weights it does not copy.

    Args:
        model: it is not changed.
        matrices: layer -> (m, n) float32. A matrix becomes the new weight itself where dtype,
            device and layout allow: it must not be used elsewhere.
    """
    replacements = {}
    for name, matrix in matrices.items():
        weight = model.get_parameter(weight_key(name))
        values = matrix.reshape(weight.shape)
        same_kind = weight.dtype == values.dtype and weight.device == values.device
        whole = values.untyped_storage().nbytes() == values.nbytes
        if not (same_kind and whole and weight.is_contiguous() and values.is_contiguous()):
            values = torch.empty_like(weight).copy_(values)
        replacements[id(weight)] = nn.Parameter(values, weight.requires_grad)
    # What the memo has for an object takes the place of a copy, wherever the object is shared.
    network = copy.deepcopy(model, dict[int, object](replacements))
    for name in matrices:
        key = weight_key(name)
        replacement = replacements[id(model.get_parameter(key))]
        weight = network.get_parameter(key)
        if weight is not replacement:  # a module copies itself in a way of its own
            with torch.no_grad():
                weight.copy_(replacement)
    return network

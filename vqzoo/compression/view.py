"""A layer's weight as a matrix, and back."""

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from vqzoo.plugin.limits import MAX_NAME_LENGTH
from vqzoo.plugin.selector import LayerInfo

_KINDS: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.Linear, "linear"),
    (nn.Conv1d, "conv1d"),
    (nn.Conv2d, "conv2d"),
    (nn.Conv3d, "conv3d"),
    (nn.ConvTranspose1d, "conv_transpose1d"),
    (nn.ConvTranspose2d, "conv_transpose2d"),
    (nn.ConvTranspose3d, "conv_transpose3d"),
    (nn.Embedding, "embedding"),
    (nn.EmbeddingBag, "embedding"),
)
LAYER_CLASSES = tuple(base for base, _ in _KINDS)
# Weights of nn.MultiheadAttention. Such a layer has the name of its parameter.
_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class _Candidate:
    """A weight that may be compressed; `weight` is None where it is computed."""

    name: str
    kind: str
    weight: Tensor | None
    groups: int


def compressible_layers(model: nn.Module) -> tuple[list[LayerInfo], dict[str, str]]:
    """List the layers of a model whose weights are matrices that vqzoo compresses.

    They are Linear layers, convolutions and transposed ones, embeddings, and the input projections
    of nn.MultiheadAttention, which have the names of their parameters, "attn.in_proj_weight". A
    weight that several modules share is listed once, under its first name; under that of a Linear
    or convolution, if an embedding shares it.

    Returns:
        The layers in the model's order, and name -> reason for whatever else holds matrices: layers
        that cannot be compressed, by their module path, and parameters that are no layer's weight,
        by their key in the state dict.
    """
    candidates = list(_candidates(model))
    owners: dict[int, str] = {}
    for one in sorted(candidates, key=lambda one: one.kind == "embedding"):
        if one.weight is not None:
            owners.setdefault(id(one.weight), one.name)
    layers: list[LayerInfo] = []
    passed: dict[str, str] = {}
    for one in candidates:
        reason = _unfit(one, owners)
        if reason is None and one.weight is not None:
            layers.append(LayerInfo(one.name, one.kind, tuple(one.weight.shape), one.groups))
        elif reason is not None:
            passed[one.name] = reason
    return layers, passed | _other_matrices(model, owners.keys(), passed)


def _candidates(model: nn.Module) -> Iterator[_Candidate]:
    for path, module in model.named_modules():
        kind = next((kind for base, kind in _KINDS if isinstance(module, base)), None)
        if kind is not None:
            groups = int(getattr(module, "groups", 1))
            yield _Candidate(path, kind, module._parameters.get("weight"), groups)
        if isinstance(module, nn.MultiheadAttention):
            for name in _PROJECTIONS:
                weight = module._parameters.get(name)
                if weight is not None:
                    yield _Candidate(f"{path}.{name}" if path else name, "attention", weight, 1)


def _unfit(one: _Candidate, owners: Mapping[int, str]) -> str | None:
    """Why a weight cannot be compressed, if it cannot."""
    weight = one.weight
    if weight is None:
        return "its weight is computed from other parameters"
    if owners[id(weight)] != one.name:
        return f"shares the weight of {owners[id(weight)]}"
    if len(weight_key(one.name)) > MAX_NAME_LENGTH:
        return f"its name has more than the {MAX_NAME_LENGTH} characters of a file's"
    if is_parameter(one.name) and one.kind != "attention":
        return "its name is one of nn.MultiheadAttention's parameters"
    unusual = _unusual(weight)
    return None if unusual is None else f"its weight is {unusual}"


def is_matrix(parameter: Tensor) -> bool:
    """Whether a parameter has two axes or more, not counting those of length 1."""
    return sum(size != 1 for size in parameter.shape) > 1


def _other_matrices(
    model: nn.Module, taken: Collection[int], passed: Mapping[str, str]
) -> dict[str, str]:
    """Name -> reason for matrices of modules that are neither compressible nor passed over.

    Args:
        model: the model.
        taken: ids of the weights of layers, compressible or passed over.
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
        if any(module.children()) or isinstance(module, LAYER_CLASSES):
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


def weight_matrix(weight: Tensor, layer: LayerInfo, device: torch.device) -> Tensor:
    """The weight of `layer` as a contiguous float32 (m, n) matrix on `device`, not copied if it is
    one."""
    matrix = weight.detach().to(device, torch.float32)
    return matrix.reshape(layer.matrix_shape).contiguous()


def layer_weight(model: nn.Module, layer: str) -> Tensor:
    """The weight of a layer, without gradients and not copied."""
    return model.get_parameter(weight_key(layer)).detach()


def is_parameter(layer: str) -> bool:
    """Whether a layer's name is that of a parameter, and not of a module with a weight."""
    return layer.rpartition(".")[2] in _PROJECTIONS


def weight_key(layer: str) -> str:
    """The key of a layer's weight in the state dict; "" stands for a model that is one layer."""
    if is_parameter(layer):
        return layer
    return f"{layer}.weight" if layer else "weight"


def layer_name(key: str) -> str:
    """The layer whose weight has this key; the inverse of `weight_key`."""
    return key if is_parameter(key) else key.removesuffix("weight").removesuffix(".")


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

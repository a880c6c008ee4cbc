"""State dicts of torch.ao.quantization, such as torchvision publishes: integers, row by row."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqzoo.errors import VqzooError
from vqzoo.plugin import ImportedNetwork, Importer, ImportTarget
from vqzoo_importers.coded.integers import integers_times
from vqzoo_importers.coded.tables import TableTensor
from vqzoo_importers.graph_network import GraphLayer, graph_network
from vqzoo_importers.state_dicts.torch_file import read_mapping

_PACKED = "._packed_params"  # the part of a Linear that holds weight and bias
_ACTIVATION = ("scale", "zero_point")  # how a module's outputs are rounded
_DTYPES = (torch.qint8, torch.quint8)


class TorchQuantized(Importer):
    """A flat state dict in which NAME.weight, or the first of NAME._packed_params._packed_params,
    is a quantized tensor. Batch norms are mostly folded into the convolutions before them, whose
    biases they become."""

    name = "torch-quantized"
    summary = "state dicts (.pth) of torch.ao.quantization, as torchvision publishes them"
    source = "torch.ao.quantization; torchvision.models.quantization"

    def read(self, path: Path, target: ImportTarget) -> ImportedNetwork:
        """Integers become rtn or km; how activations are rounded is dropped."""
        weights: dict[str, Any] = {}
        biases: dict[str, Any] = {}
        dense: dict[str, Tensor] = {}
        for key, value in read_mapping(path).items():
            if key.endswith(_PACKED + _PACKED):
                name = key.removesuffix(_PACKED + _PACKED)
                if not isinstance(value, tuple) or len(value) != 2:
                    raise VqzooError(f"{path}: {key} is no pair of a weight and a bias")
                weights[f"{name}.weight"], biases[f"{name}.bias"] = value
            elif isinstance(value, Tensor) and value.is_quantized:
                weights[key] = value
            elif isinstance(value, Tensor) and not _rounds_activations(key, target):
                dense[key] = value
            elif isinstance(value, Tensor | torch.dtype) or value is None:
                continue  # a rounding of activations, the dtype of packed weights, or no bias
            else:
                raise VqzooError(f"{path}: {key} is a {type(value).__name__}, not a tensor")
        for key in weights:
            bias = f"{key.removesuffix('weight')}bias"
            if bias in dense and bias not in target.shapes:
                biases[bias] = dense.pop(bias)
        for key in dense:
            if key not in target.shapes:
                raise VqzooError(f"{path} has {key}, which the network does not")
        layers = [_layer(path, key, weight, biases, target) for key, weight in weights.items()]
        if not layers:
            raise VqzooError(f"{path} has no quantized weight")
        arrays = {key: _array(path, key, tensor) for key, tensor in dense.items()}
        note = "The file rounds activations, too; the artifact does not."
        return graph_network(path, layers, (), arrays, target, None, None, (note,))


def _rounds_activations(key: str, target: ImportTarget) -> bool:
    return key.rpartition(".")[2] in _ACTIVATION and key not in target.shapes


def _layer(
    path: Path, key: str, weight: Any, biases: Mapping[str, Any], target: ImportTarget
) -> GraphLayer:
    where, layer = f"{path}: {key}", target.layers.get(key)
    if layer is None:
        raise VqzooError(f"{where} is quantized, and the network has no such layer")
    if not isinstance(weight, Tensor) or not weight.is_quantized:
        raise VqzooError(f"{where} is no quantized tensor")
    if tuple(weight.shape) != target.shapes[key]:
        raise VqzooError(
            f"{where} has the shape {tuple(weight.shape)}, the network's is {target.shapes[key]}"
        )
    bias = biases.get(f"{key.removesuffix('weight')}bias")
    constant = None if bias is None else _array(path, f"the bias of {key}", bias)
    return GraphLayer(key, frozenset({key}), _integers(weight, where), constant)


def _integers(weight: Tensor, where: str) -> TableTensor:
    """A quantized tensor, its shape known to be the network's."""
    if weight.dtype not in _DTYPES:
        raise VqzooError(f"{where} is {weight.dtype}, not one of 8 bits")
    scheme = weight.qscheme()
    if scheme == torch.per_tensor_affine:
        scales, zeros = torch.tensor([weight.q_scale()]), torch.tensor([weight.q_zero_point()])
    elif scheme == torch.per_channel_affine and weight.q_per_channel_axis() == 0:
        scales, zeros = weight.q_per_channel_scales(), weight.q_per_channel_zero_points()
    else:
        raise VqzooError(f"{where} has scales of the kind {scheme}, which is not imported")
    if scales.numel() not in (1, len(weight)) or zeros.numel() != scales.numel():
        raise VqzooError(f"{where} has {scales.numel()} scales for {len(weight)} rows")
    if zeros.abs().max() > 255:
        raise VqzooError(f"{where} has zero points that are no bytes")
    tensor = integers_times(
        weight.int_repr().numpy(), scales.float().numpy(), zeros.long().numpy(), 0, 0
    )
    assert tensor is not None  # bytes and float32
    return tensor


def _array(path: Path, key: str, tensor: Any) -> np.ndarray[Any, Any]:
    if not isinstance(tensor, Tensor) or tensor.is_quantized or tensor.dtype == torch.bfloat16:
        raise VqzooError(f"{path}: {key} is no tensor of floats")
    return tensor.detach().numpy()

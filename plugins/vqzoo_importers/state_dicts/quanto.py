"""State dicts of optimum-quanto: integers or floats of 8 bits of rows, and packed integers of
groups."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqzoo.errors import VqzooError
from vqzoo.plugin import ImportedNetwork, Importer, ImportTarget
from vqzoo_importers.coded.integers import floats_times, integers_times, products_of
from vqzoo_importers.coded.tables import TableTensor
from vqzoo_importers.graph_network import GraphLayer, graph_network
from vqzoo_importers.state_dicts.torch_file import read_mapping, read_safetensors

Array = NDArray[Any]
_DATA, _PACKED, _SCALE, _SHIFT = "._data", "._data._data", "._scale", "._shift"
_ACTIVATION = ("input_scale", "output_scale")  # of modules: how activations are rounded
_SMALL_FLOATS = (torch.float8_e4m3fn, torch.float8_e5m2)
_SCALES = (torch.float32, torch.float16)


class Quanto(Importer):
    """A flat state dict in which NAME.weight._data, or packed NAME.weight._data._data, holds the
    codes of NAME.weight, and NAME.weight._scale and NAME.weight._shift belong to rows or to groups
    of columns."""

    name = "quanto"
    summary = "state dicts (.safetensors, .pth) of optimum-quanto: 8, 4 and 2 bits"
    source = "huggingface/optimum-quanto"

    def read(self, path: Path, target: ImportTarget) -> ImportedNetwork:
        """Integers become rtn or km; those with shifts that are floats become pq with a table for
        each row."""
        safe = path.suffix == ".safetensors"
        content: dict[str, Any] = read_safetensors(path)[0] if safe else read_mapping(path)
        tensors: dict[str, Tensor] = {}
        for key, tensor in content.items():
            if not isinstance(tensor, Tensor) or tensor.is_quantized or tensor.is_sparse:
                raise VqzooError(f"{path}: {key} is a {type(tensor).__name__}, not a plain tensor")
            tensors[key] = tensor.detach()
        codes = [key.removesuffix(_PACKED) for key in tensors if key.endswith(_DATA)]
        keys = list(dict.fromkeys(key.removesuffix(_DATA) for key in codes))
        layers = [_layer(path, key, tensors, target) for key in keys]
        if not layers:
            raise VqzooError(f"{path} has no quantized weight")
        parts = {key + part for key in keys for part in (_DATA, _PACKED, _SCALE, _SHIFT)}
        dense, rounds = {}, False
        for key, tensor in tensors.items():
            if key in target.shapes:
                dense[key] = _floats(f"{path}: {key}", tensor)
            elif key.rpartition(".")[2] in _ACTIVATION and tensor.numel() == 1:
                rounds |= bool(tensor != 1)
            elif key not in parts:
                raise VqzooError(f"{path} has {key}, which the network does not")
        notes = ("The file rounds activations, too; the artifact does not.",) if rounds else ()
        return graph_network(path, layers, (), dense, target, None, None, notes)


def _layer(path: Path, key: str, tensors: Mapping[str, Tensor], target: ImportTarget) -> GraphLayer:
    """The layer of a weight.

    Raises:
        VqzooError: parts are missing, or do not fit the network or each other.
    """
    where = f"{path}: {key}"
    if key not in target.layers:
        raise VqzooError(f"{where} is quantized, and the network has no such layer")
    shape, scale, shift = target.shapes[key], tensors.get(key + _SCALE), tensors.get(key + _SHIFT)
    if scale is None or scale.dtype not in _SCALES:
        kind = "no scale" if scale is None else f"scales that are {scale.dtype}"
        raise VqzooError(f"{where} has {kind}, not float32 or float16")
    if key + _PACKED in tensors:
        weight = _packed(where, tensors[key + _PACKED], scale, shift, shape)
    else:
        weight = _of_bytes(where, tensors[key + _DATA], scale, shape)
    return GraphLayer(key, frozenset({key}), weight.reshape(shape))


def _of_bytes(where: str, data: Tensor, scale: Tensor, shape: tuple[int, ...]) -> TableTensor:
    """Integers or floats of 8 bits times the scale of their row, or of the weight."""
    if tuple(data.shape) != shape:
        raise VqzooError(f"{where} has the shape {tuple(data.shape)}, the network's is {shape}")
    if scale.numel() not in (1, len(data)):
        raise VqzooError(f"{where} has {scale.numel()} scales for {len(data)} rows")
    factors = scale.reshape(-1).numpy()
    if data.dtype == torch.int8:
        tensor = integers_times(data.numpy(), factors, None, 0, 0)
        assert tensor is not None  # bytes, and floats that are read
        return tensor
    if data.dtype not in _SMALL_FLOATS:
        raise VqzooError(f"{where} is {data.dtype}, which is not imported")
    rows = np.arange(len(data)) if len(factors) > 1 else np.zeros(len(data), dtype=np.int64)
    spread = np.broadcast_to(rows.reshape(-1, *[1] * (len(shape) - 1)), shape)
    values, single = data.float().numpy(), factors.astype(np.float32)
    return floats_times(values, single, spread, products_of(factors))


def _packed(
    where: str, data: Tensor, scale: Tensor, shift: Tensor | None, shape: tuple[int, ...]
) -> TableTensor:
    """Integers of 4 or 2 bits: those of a byte belong to rows of several parts of the codes, a row
    of which has a scale and a shift."""
    rows, size = scale.numel(), math.prod(shape)
    if shift is None or shift.numel() != rows or rows < 1 or rows % shape[0] or size % rows:
        raise VqzooError(f"{where} has {rows} scales, and not as many shifts and groups of columns")
    stored, columns = len(data) if data.dim() else 0, size // rows
    widths = [bits for bits in (4, 2) if stored == -(-rows * bits // 8)]
    if data.dtype != torch.uint8 or data.numel() != stored * columns or len(widths) != 1:
        raise VqzooError(
            f"{where} has {data.dtype} {tuple(data.shape)}, not {rows} rows of {columns} codes "
            "of 4 or 2 bits"
        )
    (bits,) = widths
    packed = data.numpy().reshape(stored, columns)
    planes = [(packed >> place) & ((1 << bits) - 1) for place in range(0, 8, bits)]
    codes = np.concatenate(planes)[:rows].astype(np.int32)
    factors = scale.reshape(-1).numpy()
    if not shift.is_floating_point():
        zeros = shift.reshape(-1).to(torch.int64)
        if zeros.abs().max() > 128:
            raise VqzooError(f"{where} has shifts that are no bytes")
        tensor = integers_times(codes, factors, zeros.numpy(), 0, 0)
        assert tensor is not None  # small integers, and floats that are read
        return tensor
    if shift.dtype != scale.dtype:
        raise VqzooError(f"{where} has shifts that are {shift.dtype}, unlike its scales")
    with np.errstate(over="ignore", invalid="ignore"):  # infinite values are refused later
        steps = np.arange(1 << bits, dtype=factors.dtype) * factors[:, None]
        table = steps - shift.reshape(-1, 1).numpy()
    index = codes + np.arange(rows, dtype=np.int32)[:, None] * (1 << bits)
    return TableTensor(table.astype(np.float32).reshape(-1), index)


def _floats(where: str, tensor: Tensor) -> Array:
    if tensor.dtype not in (*_SCALES, torch.int64):
        raise VqzooError(f"{where} is {tensor.dtype}, not float32 or float16")
    return tensor.numpy()

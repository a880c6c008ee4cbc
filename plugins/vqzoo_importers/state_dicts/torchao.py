"""Files of torchao's safetensors support: integers or floats of 8 bits of rows, or of groups of
columns."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from vqzoo.errors import VqzooError
from vqzoo.plugin import ImportedNetwork, Importer, ImportTarget
from vqzoo_importers.coded.integers import are_exact, floats_times, integers_times
from vqzoo_importers.coded.tables import Products, TableTensor
from vqzoo_importers.graph_network import GraphLayer, graph_network
from vqzoo_importers.state_dicts.torch_file import read_safetensors

_NAMES = "tensor_names"  # in the metadata: a list in JSON
_DENSE = "Tensor"
_CODES = {
    "Int8Tensor": torch.int8,
    "IntxUnpackedToInt8Tensor": torch.int8,
    "Float8Tensor": torch.float8_e4m3fn,
}
_SCALES = {  # the dtype of products -> those of scales
    "float32": (torch.float32,),
    "float16": (torch.float32, torch.float16),
    "bfloat16": (torch.float32, torch.bfloat16),
}
_FIELDS = ("qdata", "scale", "zero_point")


class _Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class _Dtype(_Block):
    name: str = Field(alias="_data", max_length=30)


class _Blocks(_Block):
    block_size: tuple[int, int]
    dtype: _Dtype
    act_quant_kwargs: Any = None
    activation_quantization: Any = None


class _Described(_Block):
    kind: str = Field(alias="_type")
    data: Any = Field(None, alias="_data")


class TorchAo(Importer):
    """A safetensors file whose metadata says of each tensor what it is. PATH._weight_qdata holds
    the codes of PATH.weight; PATH._weight_scale and PATH._weight_zero_point belong to blocks of
    each row."""

    name = "torchao"
    summary = "safetensors files of torchao: integers of 8 bits and fewer, floats of 8"
    source = "torchao.prototype.safetensors"

    def read(self, path: Path, target: ImportTarget) -> ImportedNetwork:
        """Integers become rtn or km, floats km."""
        tensors, metadata = read_safetensors(path)
        layers, dense, rounds = [], {}, False
        for key in _parsed(path, metadata, _NAMES, list[str]):
            described = _parsed(path, metadata, key, _Described)
            if described.kind == _DENSE:
                if key not in target.shapes or key not in tensors:
                    whose = "the network" if key in tensors else "the file"
                    raise VqzooError(f"{path}: {whose} has no {key}")
                dense[key] = _floats(path, key, tensors[key])
            elif described.kind in _CODES:
                data = _valid(path, key, described.data)
                rounds |= bool(data.act_quant_kwargs or data.activation_quantization)
                weight = _weight(path, key, described.kind, data, tensors, target)
                layers.append(GraphLayer(key, frozenset({key}), weight))
            else:
                raise VqzooError(
                    f"{path}: {key} is a {described.kind!r:.60}, which is not imported"
                )
        if not layers:
            raise VqzooError(f"{path} has no quantized weight")
        notes = ("The file rounds activations, too; the artifact does not.",) if rounds else ()
        return graph_network(path, layers, (), dense, target, None, None, notes)


def _parsed(path: Path, metadata: Mapping[str, str], key: str, kind: Any) -> Any:
    """An entry of the metadata, which is JSON."""
    if key not in metadata:
        raise VqzooError(f"{path} is no file of torchao: its metadata has no {key!r:.100}")
    try:
        return TypeAdapter(kind).validate_json(metadata[key])
    except ValidationError:
        raise VqzooError(f"{path}: its metadata {key!r:.100} is malformed") from None


def _valid(path: Path, key: str, data: Any) -> _Blocks:
    try:
        return _Blocks.model_validate(data)
    except ValidationError:
        raise VqzooError(f"{path}: its metadata {key!r:.100} is malformed") from None


def _weight(
    path: Path,
    key: str,
    kind: str,
    data: _Blocks,
    tensors: Mapping[str, Tensor],
    target: ImportTarget,
) -> TableTensor:
    """The weight of a Linear layer.

    Raises:
        VqzooError: parts are missing, or do not fit the network or each other.
    """
    where, shape = f"{path}: {key}", target.shapes.get(key, ())
    if key not in target.layers or len(shape) != 2:
        raise VqzooError(f"{where} is quantized, and the network has no such Linear layer")
    module, _, name = key.rpartition(".")
    parts = {field: tensors.get(f"{module}._{name}_{field}") for field in _FIELDS}
    codes, scale, zero = parts.values()
    if f"{module}._{name}_act_pre_scale" in tensors:
        raise VqzooError(f"{where} scales its inputs, which is not imported")
    if codes is None or scale is None:
        raise VqzooError(f"{where} has no {'scale' if scale is None else 'qdata'}")
    if scale.dtype not in _SCALES.get(data.dtype.name, ()):
        raise VqzooError(
            f"{where} is computed in {data.dtype.name!r} with scales that are {scale.dtype}, which "
            "is not imported"
        )
    if codes.dtype != _CODES[kind] or tuple(codes.shape) != shape:
        expected = str(_CODES[kind]).removeprefix("torch.")
        raise VqzooError(f"{where} has {codes.dtype} {tuple(codes.shape)}, not {expected} {shape}")
    rows, columns = data.block_size
    (m, n), whole = shape, data.block_size == shape
    if not whole and (rows != 1 or not 1 <= columns <= n or n % columns):
        raise VqzooError(f"{where} has blocks of {rows} × {columns}, which is not imported")
    blocks = (1, 1) if whole else (m, n // columns)
    if scale.numel() != blocks[0] * blocks[1] or (zero is not None and zero.shape != scale.shape):
        raise VqzooError(f"{where} has {scale.numel()} scales, not those of {blocks} blocks")
    products = cast(Products, data.dtype.name)
    factors = scale.reshape(blocks).float().numpy()
    if kind == "Float8Tensor":
        if zero is not None:
            raise VqzooError(f"{where} has floats with zero points, which is not imported")
        count = np.arange(factors.size).reshape(blocks)
        spread = np.broadcast_to(np.repeat(count, n // blocks[1], axis=1), shape)
        return floats_times(codes.float().numpy(), factors.reshape(-1), spread, products)
    if zero is not None and zero.dtype not in (torch.int8, torch.uint8, torch.int32, torch.int64):
        raise VqzooError(f"{where} has zero points that are {zero.dtype}, not integers")
    zeros = None if zero is None else zero.reshape(blocks).numpy()
    tensor = integers_times(codes.numpy(), factors, zeros, 1, columns)
    if tensor is None or not are_exact(tensor.table, products):
        raise VqzooError(f"{where} has zero points that are far from its integers")
    return replace(tensor, products=products)


def _floats(path: Path, key: str, tensor: Tensor) -> np.ndarray[Any, Any]:
    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.int64):
        raise VqzooError(f"{path}: {key} is {tensor.dtype}, not one of floats")
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()

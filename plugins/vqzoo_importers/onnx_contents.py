"""The codes of ONNX files that `vqzoo export` wrote: their metadata says which initializers hold
them."""

import base64
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from vqzoo.errors import VqzooError, invalid_field, one_line
from vqzoo.numerics.decoding.planes import from_planes, plane_widths
from vqzoo.plugin import Code, Floats, ImportedNetwork, ImportTarget, Indices, MethodCode
from vqzoo.plugin.limits import MAX_CARDINALITY

METADATA = "vqzoo.network"
_MOST_BYTES = 64 << 20  # of the metadata
_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}

Size = Annotated[int, Field(ge=0, strict=True)]
Values = str | list[float]
_Count = Annotated[int, Field(strict=True, ge=0, lt=1 << 63)]
_COUNTERS = "num_batches_tracked"  # of batch norms


class _Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class _Floats(_Block):
    shape: tuple[Size, ...]
    dtype: Literal["float16", "bfloat16", "float32"]
    exponent: Annotated[int, Field(strict=True, ge=-1000, le=1000)]
    values: Values


class _Indices(_Block):
    shape: tuple[Size, ...]
    cardinality: Annotated[int, Field(strict=True, ge=1, le=MAX_CARDINALITY)]
    planes: list[Values]


class _Code(_Block):
    method: str
    shape: tuple[Size, Size]
    parts: dict[str, _Floats | _Indices]
    facts: dict[str, bool | int | float | str]
    children: dict[str, "_Code"]


class _Network(_Block):
    codes: dict[str, _Code]
    tensors: dict[str, Values]
    counters: _Count | list[_Count] = 0


def network_of_contents(
    path: Path, text: str, model: Any, target: ImportTarget, limit: int
) -> ImportedNetwork:
    """The network that the metadata describes.

    Args:
        path: the file, for messages.
        text: of the metadata.
        model: an onnx.ModelProto.
        target: the network.
        limit: elements that a tensor may have.

    Raises:
        VqzooError: the metadata is malformed, or does not fit the initializers or the network.
    """
    from onnx import numpy_helper

    text = _inflated(path, text)
    try:
        network = _Network.model_validate_json(text)
    except ValidationError as error:
        field = invalid_field(error)
        raise VqzooError(
            f"{path}: its metadata {METADATA} is malformed at {field.name!r:.200}: {field.reason}"
        ) from None
    arrays = {}
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) > limit:
            raise VqzooError(f"{path}: {tensor.name} is far larger than the network")
        arrays[tensor.name] = tensor
    reader = _Reader(path, arrays, numpy_helper.to_array)
    layers = {key: reader.code(key, code) for key, code in network.codes.items()}
    tensors = {}
    for key, values in network.tensors.items():
        shape = target.shapes.get(key)
        if shape is None:
            raise VqzooError(f"{path} has {key}, which the network does not have")
        one = isinstance(values, list) and len(values) == 1  # of which all others are copies
        tensors[key] = reader.floats(key, values, () if one else shape, torch.float32).expand(shape)
    return ImportedNetwork(layers, tensors | _counters(path, network.counters, target))


def _counters(path: Path, counters: int | list[int], target: ImportTarget) -> dict[str, Tensor]:
    """The counters of batch norms, in the order of the network's keys."""
    keys = [key for key in target.shapes if key.rpartition(".")[2] == _COUNTERS]
    counts = [counters] * len(keys) if isinstance(counters, int) else counters
    if len(counts) != len(keys):
        raise VqzooError(f"{path} has {len(counts)} counters of batch norms, not {len(keys)}")
    return {key: torch.tensor(count) for key, count in zip(keys, counts, strict=True)}


def _inflated(path: Path, text: str) -> str:
    """The JSON of the metadata, which earlier files have as it is.

    Raises:
        VqzooError: it is too long, or no deflated text in base64.
    """
    if text.startswith("{"):
        plain, ended = text.encode(), True
    else:
        stream = zlib.decompressobj()
        try:
            plain = stream.decompress(base64.b64decode(text, validate=True), _MOST_BYTES)
            text = plain.decode()
        except (ValueError, zlib.error) as error:
            raise VqzooError(
                f"{path}: its metadata {METADATA} cannot be inflated: {one_line(error)}"
            ) from None
        ended = stream.eof
    if len(plain) > _MOST_BYTES or not ended:
        raise VqzooError(f"{path}: its metadata {METADATA} is too long or cut off")
    return text


class _Reader:
    """Looks up tensors among the initializers of a file."""

    def __init__(self, path: Path, arrays: Mapping[str, Any], read: Any) -> None:
        self._path, self._arrays, self._read = path, arrays, read

    def code(self, key: str, described: _Code) -> MethodCode:
        """The code of a weight, or of a child."""
        parts: dict[str, Indices | Floats] = {}
        for name, part in described.parts.items():
            where = f"{key}, part {name!r}"
            if isinstance(part, _Indices):
                parts[name] = self._indices(where, part)
            else:
                stored = self.floats(where, part.values, part.shape, _DTYPES[part.dtype])
                parts[name] = Floats(stored, part.exponent)
        children = {
            name: self.code(f"{key}, child {name!r}", child)
            for name, child in described.children.items()
        }
        code = Code(described.shape, parts, dict(described.facts), children)
        return MethodCode(described.method, code)

    def floats(
        self, where: str, values: Values, shape: tuple[int, ...], dtype: torch.dtype
    ) -> Tensor:
        """A tensor of a shape and a dtype that holds the values exactly."""
        array = self._array(where, values).astype(np.float32)
        if array.size != math.prod(shape):
            raise VqzooError(f"{self._path}: {where} has {array.size} values, not those of {shape}")
        single = torch.from_numpy(np.array(array)).reshape(shape)
        stored = single.to(dtype)
        if not torch.equal(stored.float(), single):
            raise VqzooError(f"{self._path}: {where} has values that {dtype} cannot hold")
        return stored

    def _indices(self, where: str, part: _Indices) -> Indices:
        bits = max(1, (part.cardinality - 1).bit_length())
        count, widths = math.prod(part.shape), plane_widths(bits)
        planes = []
        if len(part.planes) != len(widths):
            raise VqzooError(f"{self._path}: {where} has {len(part.planes)} planes")
        for values, width in zip(part.planes, widths, strict=True):
            plane = self._array(where, values)
            if plane.size != -(-count * width // 8) or (plane != plane.astype(np.uint8)).any():
                raise VqzooError(f"{self._path}: {where} is no plane of {count} codes")
            planes.append(torch.from_numpy(plane.astype(np.uint8).reshape(-1)))
        return Indices(from_planes(planes, bits, part.shape), part.cardinality)

    def _array(self, where: str, values: Values) -> NDArray[Any]:
        if isinstance(values, list):
            return np.array(values, dtype=np.float64)
        tensor = self._arrays.get(values)
        if tensor is None:
            raise VqzooError(f"{self._path}: {where} is in {values!r:.80}, which is no initializer")
        array: NDArray[Any] = np.asarray(self._read(tensor))
        return array

"""Core ML programs (.mlpackage) as operations and constants; nothing of them is compiled or run."""

import json
import logging
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqzoo.errors import UsageError, VqzooError, one_line
from vqzoo_importers.coded.tables import unpack_bits

_MODEL, _WEIGHTS = "com.apple.CoreML/model.mlmodel", "com.apple.CoreML/weights"
_SENTINEL = 0xDEADBEEF  # begins the description of a stored tensor: 64 bytes
_DESCRIPTION = struct.Struct("<IIQQ")  # sentinel, type, size in bytes, offset of the data

# DataType of MIL.proto -> bits of an element, and numpy's type; those below a byte are packed.
_TYPES: dict[int, tuple[int, str]] = {
    1: (8, "?"), 10: (16, "<f2"), 11: (32, "<f4"),
    21: (8, "<i1"), 22: (16, "<i2"), 23: (32, "<i4"), 24: (64, "<i8"), 25: (4, "<i1"),
    31: (8, "<u1"), 32: (16, "<u2"), 33: (32, "<u4"), 34: (64, "<u8"), 35: (4, "<u1"),
    36: (2, "<u1"), 37: (1, "<u1"), 38: (6, "<u1"), 39: (3, "<u1"),
}  # fmt: skip
_FIELDS = ("floats", "ints", "bools", "longInts", "doubles")  # of immediate values


@dataclass(frozen=True)
class Operation:
    """One operation of a program.

    Attributes:
        kind: "conv", "constexpr_lut_to_dense", ...
        outputs: their names, one or more.
        inputs: name of an input -> name of the tensor.
        constants: name of an input or attribute -> its value, where that stands in the operation.
    """

    kind: str
    outputs: tuple[str, ...]
    inputs: Mapping[str, str]
    constants: Mapping[str, NDArray[Any]]

    @property
    def output(self) -> str:
        """The name of its first output."""
        return self.outputs[0]


@dataclass(frozen=True)
class Program:
    """The main function of a package, in order, and what its metadata says.

    Attributes:
        operations: in order.
        licence: of the metadata.
        by_vqzoo: whether vqzoo wrote it, so that products with scales in float16 stand for products
            in float32.
    """

    operations: tuple[Operation, ...]
    licence: str | None
    by_vqzoo: bool


def read_program(path: Path, limit: int) -> Program:
    """Read a package.

    Args:
        path: the .mlpackage, a folder.
        limit: elements that a constant may have.

    Raises:
        UsageError: coremltools is not installed.
        VqzooError: the package is damaged, or holds no program.
    """
    proto = _message_class()
    if not path.is_dir():
        raise VqzooError(f"{path} is no .mlpackage, which is a folder")
    model, weights = _item(path, _MODEL), _item(path, _WEIGHTS)
    try:
        spec = proto.FromString(model.read_bytes())
    except Exception as error:  # of a hostile file: anything
        raise VqzooError(f"{model} cannot be read: {one_line(error)}") from None
    functions = spec.mlProgram.functions
    if "main" not in functions:
        raise VqzooError(f"{path} holds no ML program with a function main")
    function = functions["main"]
    block = function.block_specializations.get(function.opset)
    if block is None:
        raise VqzooError(f"{path}: main has no block for its opset {function.opset!r}")
    reader = _Reader(path, weights, limit)
    operations = tuple(reader.operation(entry) for entry in block.operations if entry.outputs)
    metadata = spec.description.metadata
    by_vqzoo = metadata.userDefined.get("vqzoo.scales") == "float32"
    return Program(operations, metadata.license or None, by_vqzoo)


def _message_class() -> Any:
    logging.getLogger("coremltools").setLevel(logging.ERROR)  # it tells of what it cannot run here
    try:
        from coremltools.proto import Model_pb2
    except ImportError:
        raise UsageError(
            "reading Core ML packages takes coremltools: pip install 'vqzoo[coreml]'"
        ) from None
    return Model_pb2.Model


def _item(path: Path, default: str) -> Path:
    """A file or folder of a package, which its manifest lists."""
    manifest = path / "Manifest.json"
    names = [default]
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))["itemInfoEntries"].values()
        names += [str(e["path"]) for e in entries if str(e["path"]).endswith(Path(default).name)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise VqzooError(f"{path} has no manifest that can be read") from None
    data = (path / "Data").resolve()
    for name in names:
        item = (data / name).resolve()
        if item.exists() and item.is_relative_to(data):
            return item
    if default == _WEIGHTS:
        return data  # all constants stand in the program
    raise VqzooError(f"{path} has no {default}")


@dataclass(frozen=True)
class _Reader:
    """Reads the operations of one package."""

    path: Path
    weights: Path
    limit: int

    def operation(self, entry: Any) -> Operation:
        constants = {name: self.value(value) for name, value in self._values(entry)}
        inputs = {
            name: argument.arguments[0].name
            for name, argument in entry.inputs.items()
            if len(argument.arguments) == 1 and argument.arguments[0].name
        }
        held = {name: value for name, value in constants.items() if value is not None}
        outputs = tuple(output.name for output in entry.outputs)
        return Operation(entry.type, outputs, inputs, held)

    def _values(self, entry: Any) -> Iterator[tuple[str, Any]]:
        yield from entry.attributes.items()
        for name, argument in entry.inputs.items():
            if len(argument.arguments) == 1 and argument.arguments[0].HasField("value"):
                yield name, argument.arguments[0].value

    def value(self, value: Any) -> NDArray[Any] | None:
        """A tensor of numbers; None for texts, and whatever else there may be."""
        kind = value.type.tensorType
        if kind.dataType not in _TYPES:
            return None
        shape = tuple(int(entry.constant.size) for entry in kind.dimensions)
        if math.prod(shape) > self.limit:
            raise VqzooError(f"{self.path}: a constant of the shape {shape} is far too large")
        if value.HasField("blobFileValue"):
            return self._stored(value.blobFileValue, kind.dataType, shape)
        tensor = value.immediateValue.tensor
        dtype = _TYPES[kind.dataType][1]
        if tensor.HasField("bytes"):
            return self._unpacked(tensor.bytes.values, kind.dataType, shape)
        for field in _FIELDS:
            if tensor.HasField(field):
                values = np.array(getattr(tensor, field).values).astype(dtype)
                if values.size == math.prod(shape):
                    return values.reshape(shape)
        raise VqzooError(f"{self.path}: a constant of the shape {shape} has not as many values")

    def _stored(self, blob: Any, kind: int, shape: tuple[int, ...]) -> NDArray[Any]:
        """A tensor in the file of weights: a description at the offset says where its bytes are."""
        name = Path(blob.fileName).name
        file = self.weights / name
        try:
            with file.open("rb") as stream:
                stream.seek(blob.offset)
                sentinel, _, size, offset = _DESCRIPTION.unpack(stream.read(_DESCRIPTION.size))
                if sentinel != _SENTINEL or size > file.stat().st_size:
                    raise ValueError("no tensor is described there")
                stream.seek(offset)
                data = stream.read(size)
                if len(data) < size:
                    raise ValueError("the file ends within a tensor")
        except (OSError, ValueError, OverflowError, struct.error) as error:
            raise VqzooError(f"{file} at {blob.offset}: {one_line(error)}") from None
        return self._unpacked(data, kind, shape)

    def _unpacked(self, data: bytes, kind: int, shape: tuple[int, ...]) -> NDArray[Any]:
        bits, dtype = _TYPES[kind]
        count = math.prod(shape)
        if len(data) != -(-count * bits // 8):
            raise VqzooError(
                f"{self.path}: a constant of the shape {shape} has {len(data)} bytes instead of "
                f"{-(-count * bits // 8)}"
            )
        if bits >= 8:
            return np.frombuffer(data, dtype).reshape(shape)
        values = unpack_bits(np.frombuffer(data, np.uint8), bits, count)
        if dtype == "<i1":  # two's complement of so many bits
            values = (values.astype(np.int8) ^ (1 << (bits - 1))) - np.int8(1 << (bits - 1))
        return values.reshape(shape)

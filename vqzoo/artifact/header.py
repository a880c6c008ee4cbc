"""Read the header of a safetensors file strictly, without torch.

safetensors itself lets the last of two equal keys win and gives terse errors. Here each tensor must
lie within the file, directly behind the one before it, and have as many bytes as its shape needs.
"""

import json
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqzoo.artifact.dtypes import BY_STORED_NAME
from vqzoo.errors import ArtifactError, one_line

MAX_HEADER_BYTES = 32 << 20
MAX_SIZE = 1 << 48  # of a tensor, one of its dimensions, or an offset
MAX_HEADER_DIMENSIONS = 16


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor is stored.

    Attributes:
        dtype: safetensors' name of its element type, "F16".
        shape: of the tensor.
        begin: offset of its first byte from the start of the file.
        end: offset behind its last byte.
        value: of all its elements, where no bytes are stored for it.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
    value: bool | int | float | None = None

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.end - self.begin


@dataclass(frozen=True)
class Header:
    """The header of a file: tensors by name, the metadata, and the size of the whole file."""

    tensors: dict[str, StoredTensor]
    metadata: dict[str, str]
    file_bytes: int


def strict_json(text: str | bytes, what: str) -> Any:
    """Parse JSON without duplicate keys, NaN, infinite numbers or an integer -0.

    Args:
        text: the JSON.
        what: the name of its source, for error messages.

    Raises:
        ArtifactError: `text` is anything else.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = dict(pairs)
        if len(mapping) != len(pairs):
            raise ArtifactError(f"{what} has a duplicate key")
        return mapping

    def refuse(constant: str) -> Any:
        raise ArtifactError(f"{what} holds the number {constant}")

    def finite(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else refuse(f"{digits:.20}, which is too large")

    def whole(digits: str) -> int:
        return refuse(digits) if digits == "-0" else int(digits)

    try:
        return json.loads(
            text,
            object_pairs_hook=unique,
            parse_constant=refuse,
            parse_float=finite,
            parse_int=whole,
        )
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{what} is not valid JSON: {one_line(error)}") from None


def utf8(raw: bytes, what: str) -> str:
    """The text of bytes in UTF-8; JSON's parser would take UTF-16 and UTF-32, too.

    Raises:
        ArtifactError: they are something else.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ArtifactError(f"{what} is not UTF-8") from None


def read_header(path: Path) -> Header:
    """Read and check a header, and nothing behind it.

    Raises:
        ArtifactError: the file is truncated, or its header is malformed or inconsistent.
    """
    name = path.name
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            if len(start) < 8:
                raise ArtifactError(f"{name} is too short to be a safetensors file")
            (length,) = struct.unpack("<Q", start)
            if length > min(size - 8, MAX_HEADER_BYTES):
                raise ArtifactError(f"{name} is truncated, or its header claims {length} bytes")
            raw = file.read(length)
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist") from None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from None
    entries = strict_json(utf8(raw, f"the header of {name}"), f"the header of {name}")
    if not isinstance(entries, dict):
        raise ArtifactError(f"the header of {name} is not a JSON object")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ArtifactError(f"the metadata of {name} is not text")
    tensors = {key: _tensor(key, entry, 8 + length, name) for key, entry in entries.items()}
    _check_layout(tensors, 8 + length, size, name)
    return Header(tensors, metadata, size)


def _tensor(key: str, entry: Any, start: int, name: str) -> StoredTensor:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [*shape, begin, end]
        valid = (
            len(entry) == 3
            and isinstance(shape, list)
            and len(shape) <= MAX_HEADER_DIMENSIONS
            and dtype in BY_STORED_NAME
            and all(type(n) is int and 0 <= n <= MAX_SIZE for n in numbers)
            and math.prod(size for size in shape if size) <= MAX_SIZE
        )
    except (TypeError, KeyError, ValueError):
        valid = False
    if not valid:
        raise ArtifactError(f"{name}: the header entry of tensor {key!r} is malformed")
    if math.prod(shape) * BY_STORED_NAME[dtype].itemsize != end - begin:
        raise ArtifactError(
            f"{name}: tensor {key!r} has {end - begin} bytes, which do not fit {dtype} {shape}"
        )
    return StoredTensor(dtype, tuple(shape), start + begin, start + end)


def _check_layout(tensors: dict[str, StoredTensor], start: int, size: int, name: str) -> None:
    position = start
    for key, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != position:
            raise ArtifactError(f"{name}: tensor {key!r} overlaps another or leaves a gap")
        position = tensor.end
    if position != size:
        raise ArtifactError(f"{name} has {size} bytes, but its header describes {position}")

"""The layout `compact`: one tensor of bytes, and a compressed index that says what is in it.

Nothing here imports torch, so that headers can be read without it.
"""

import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vqzoo.artifact.dtypes import BY_STORED_NAME, ElementType
from vqzoo.artifact.header import MAX_HEADER_BYTES, Header, StoredTensor, strict_json, utf8
from vqzoo.artifact.schema import SEPARATOR
from vqzoo.errors import ArtifactError, invalid_field
from vqzoo.plugin.limits import MAX_DIMENSIONS, MAX_NAME_LENGTH, MAX_NUMEL

DATA = "data"  # the tensor that holds the bytes of all others
INDEX = "index"  # the tensor that says what they are
MAX_CONSTANTS = 1 << 24  # values of all tensors that are not stored, together
_MOVED = ("layers", "aliases")  # keys of the metadata that are in the index
_OPTIONAL = "norms"  # a key that is in the index, if it is anywhere
_LEVEL = 9  # of zlib

Number = bool | int | float
_Size = Annotated[int, Field(ge=0, le=MAX_NUMEL, strict=True)]


class _Tensor(BaseModel):
    """A tensor of the index: its key, element type and shape, and its value if it has only one."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

    key: Annotated[str, Field(max_length=4 * MAX_NAME_LENGTH)]
    dtype: str
    shape: Annotated[tuple[_Size, ...], Field(max_length=MAX_DIMENSIONS)]
    value: Any = None  # `_check_constant` checks it


class _Tensors(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    tensors: list[_Tensor]


def pack_index(
    metadata: Mapping[str, Any], tensors: Sequence[tuple[str, str, Sequence[int], Number | None]]
) -> tuple[dict[str, Any], bytes]:
    """Divide metadata into what stays in the header, and the index.

    Args:
        metadata: of the plain layout.
        tensors: key, safetensors' name of the element type, shape, and the value of a tensor that
            is not stored because it has no other; stored ones in the order of their bytes.

    Returns:
        The metadata of the header, and the bytes of the tensor `INDEX`.
    """
    moved = (*_MOVED, _OPTIONAL)
    index = {key: metadata[key] for key in moved if key in metadata}
    index["tensors"] = [
        [key, dtype, list(shape), *([] if value is None else [value])]
        for key, dtype, shape, value in tensors
    ]
    text = json.dumps(index, sort_keys=True, separators=(",", ":"), allow_nan=False)
    kept = {key: value for key, value in metadata.items() if key not in moved}
    return kept, zlib.compress(text.encode(), _LEVEL)


def unpack_header(path: Path, header: Header, metadata: Any) -> tuple[Header, Any]:
    """The header and the metadata that a compact file would have in the plain layout.

    Args:
        path: the file.
        header: its own header.
        metadata: the parsed value of the header's one metadata key.

    Raises:
        ArtifactError: the index cannot be read, or does not fit the bytes.
    """
    name = path.name
    shapes = {key: (tensor.dtype, len(tensor.shape)) for key, tensor in header.tensors.items()}
    if shapes != {DATA: ("U8", 1), INDEX: ("U8", 1)} or not isinstance(metadata, dict):
        raise ArtifactError(f"{name} must have the tensors {DATA!r} and {INDEX!r} of bytes alone")
    index = _read_index(path, header.tensors[INDEX])
    if not isinstance(index, dict) or set(index) - {_OPTIONAL} != {*_MOVED, "tensors"}:
        raise ArtifactError(f"the index of {name} must have {', '.join(_MOVED)} and tensors")
    if repeated := [key for key in index if key in metadata]:
        raise ArtifactError(f"{name} has {repeated[0]!r} both in its header and in its index")
    data = header.tensors[DATA]
    tensors = dict(_located(_entries(index.pop("tensors"), name), data, name))
    return Header(tensors, header.metadata, header.file_bytes), {**metadata, **index}


def _read_index(path: Path, stored: StoredTensor) -> Any:
    what = f"the index of {path.name}"
    if stored.nbytes > MAX_HEADER_BYTES:
        raise ArtifactError(f"{what} has {stored.nbytes} bytes: there may be {MAX_HEADER_BYTES}")
    try:
        with path.open("rb") as file:
            file.seek(stored.begin)
            raw = file.read(stored.nbytes)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from None
    stream = zlib.decompressobj()
    try:
        text = stream.decompress(raw, MAX_HEADER_BYTES)
    except zlib.error as error:
        raise ArtifactError(f"{what} cannot be decompressed: {error}") from None
    if not stream.eof or stream.unused_data:
        raise ArtifactError(
            f"{what} is not one whole zlib stream of at most {MAX_HEADER_BYTES} bytes"
        )
    return strict_json(utf8(text, what), what)


def _entries(tensors: Any, name: str) -> list[_Tensor]:
    """The tensors of an index, checked one by one."""
    try:
        named = [dict(zip(_Tensor.model_fields, entry, strict=False)) for entry in tensors]
        entries = _Tensors.model_validate({"tensors": named}).tensors
        sizes = [len(entry) for entry in tensors]
    except ValidationError as error:
        field = invalid_field(error)
        raise ArtifactError(
            f"the index of {name} is malformed at {field.name!r:.200}: {field.reason}"
        ) from None
    except TypeError:
        sizes = [0]
    if any(size not in (3, 4) for size in sizes):
        raise ArtifactError(f"the index of {name} has tensors without key, dtype and shape")
    if len({entry.key for entry in entries}) != len(entries):
        raise ArtifactError(f"the index of {name} lists a tensor twice")
    return entries


def _located(
    entries: Sequence[_Tensor], data: StoredTensor, name: str
) -> Iterator[tuple[str, StoredTensor]]:
    """Yield key and place of each tensor; together they are all of `data`.

    Raises:
        ArtifactError: they are not, or a constant is not one that its element type has.
    """
    position, constants = data.begin, 0
    for entry in entries:
        element = BY_STORED_NAME.get(entry.dtype)
        if element is None:
            raise ArtifactError(f"{name}: tensor {entry.key!r:.200} has dtype {entry.dtype!r:.40}")
        count = math.prod(size for size in entry.shape if size)
        size = math.prod(entry.shape) * element.itemsize
        if count > MAX_NUMEL:
            raise ArtifactError(f"{name}: tensor {entry.key!r:.200} has {count} values: too many")
        if entry.value is not None:
            constants += count
            size = 0
            _check_constant(entry, element, constants, name)
        yield (
            entry.key,
            StoredTensor(entry.dtype, entry.shape, position, position + size, entry.value),
        )
        position += size
    if position != data.end:
        raise ArtifactError(
            f"{name} holds {data.nbytes} bytes of tensors, but its index describes "
            f"{position - data.begin}"
        )


def _check_constant(entry: _Tensor, element: ElementType, constants: int, name: str) -> None:
    if constants > MAX_CONSTANTS or len(entry.shape) > 1 or SEPARATOR in entry.key:
        raise ArtifactError(
            f"{name}: only dense vectors, of {MAX_CONSTANTS} values together, may have no bytes of "
            f"their own; {entry.key!r:.200} is beyond that"
        )
    value, kind = entry.value, constant_type(element)
    largest = (1 << 8 * element.itemsize - 1) - 1
    if type(value) is not kind or (type(value) is int and not 0 <= value <= largest):
        raise ArtifactError(f"{name}: {entry.key!r:.200} cannot have the value {value!r:.40}")


def constant_type(element: ElementType) -> type:
    """The type in JSON of a constant's value: bool, int or float."""
    if element.name == "bool":
        return bool
    return float if element.is_floating_point else int

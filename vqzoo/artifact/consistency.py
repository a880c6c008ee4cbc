"""Check that the metadata of an artifact agrees with the tensors that the file holds."""

import math

from vqzoo.artifact.dtypes import BY_NAME
from vqzoo.artifact.header import Header, StoredTensor
from vqzoo.artifact.parts import layer_parts
from vqzoo.artifact.schema import (
    SEPARATOR,
    WEIGHTS_FILE,
    CodeEntry,
    FloatsEntry,
    IndicesEntry,
    LayerEntry,
    Metadata,
)
from vqzoo.errors import ArtifactError
from vqzoo.plugin.limits import MAX_CHILD_GROWTH, MAX_CODES_PER_WEIGHT, MAX_NUMEL


def check_tensors(header: Header, metadata: Metadata) -> None:
    """Check that every part has its tensor, that every tensor has an owner, and all sizes.

    Raises:
        ArtifactError: names the first tensor or layer that disagrees.
    """
    owned: set[str] = set()
    for key, entry in metadata.layers.items():
        _check_layer(key, entry, header)
        for name, part in layer_parts(key, entry.code):
            stored = header.tensors.get(name)
            if stored is None:
                raise ArtifactError(f"tensor {name!r} is missing from {WEIGHTS_FILE}")
            _check_part(name, part, stored)
            owned.add(name)
    for name in header.tensors:
        if SEPARATOR in name and name not in owned:
            raise ArtifactError(f"tensor {name!r} belongs to no layer")
    _check_aliases(header, metadata)


def _check_layer(key: str, entry: LayerEntry, header: Header) -> None:
    if key in header.tensors:
        raise ArtifactError(f"{key!r} is stored both compressed and dense")
    m, n = entry.view
    if entry.code.shape != entry.view or math.prod(entry.shape) != m * n:
        raise ArtifactError(f"{key!r}: view {entry.view} does not fit shape {entry.shape}")
    _check_children(key, entry.code)
    _check_code_count(key, entry)


def _check_children(key: str, code: CodeEntry) -> None:
    for name, child in code.children.items():
        if math.prod(child.shape) > MAX_CHILD_GROWTH * math.prod(code.shape):
            raise ArtifactError(f"{key!r}: the child {name!r} of shape {child.shape} is too large")
        _check_children(key, child)


def _check_code_count(key: str, entry: LayerEntry) -> None:
    """Bound the codes by the weights: a short entropy-coded stream can claim any number."""
    parts = [part for _, part in layer_parts(key, entry.code) if isinstance(part, IndicesEntry)]
    codes = sum(math.prod(part.shape) for part in parts)
    if codes > MAX_CODES_PER_WEIGHT * math.prod(entry.shape):
        raise ArtifactError(f"{key!r} claims {codes} codes for {math.prod(entry.shape)} weights")


def _check_part(name: str, part: IndicesEntry | FloatsEntry, stored: StoredTensor) -> None:
    if isinstance(part, FloatsEntry):
        if stored.dtype != BY_NAME[part.dtype].stored_name or stored.shape != part.shape:
            raise ArtifactError(
                f"tensor {name!r} is stored as {stored.dtype} {stored.shape}, but its entry says "
                f"{part.dtype} {part.shape}"
            )
    elif stored.dtype != "U8" or len(stored.shape) != 1:
        raise ArtifactError(f"tensor {name!r} is not a byte stream")
    elif math.prod(size for size in part.shape if size) > MAX_NUMEL:
        raise ArtifactError(f"tensor {name!r} claims codes of shape {part.shape}: too many")


def _check_aliases(header: Header, metadata: Metadata) -> None:
    for alias, key in metadata.aliases.items():
        if key not in metadata.layers and (key not in header.tensors or SEPARATOR in key):
            raise ArtifactError(f"{alias!r} is an alias of {key!r}, which is not stored")
        if alias in metadata.layers or alias in header.tensors:
            raise ArtifactError(f"{alias!r} is both stored and an alias of {key!r}")

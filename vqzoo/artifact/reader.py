"""Reads artifacts, which may come from anyone: everything is checked before it is believed."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from vqzoo.artifact.dtypes import BY_NAME
from vqzoo.artifact.files import canonical_json, record_sha256, sha256_file, sha256_text
from vqzoo.artifact.header import Header, StoredTensor, read_header, strict_json
from vqzoo.artifact.schema import (
    CONFIG_FILE,
    FORMAT_VERSION,
    SEPARATOR,
    WEIGHTS_FILE,
    CodeEntry,
    ConfigBlock,
    FloatsEntry,
    IndicesEntry,
    LayerEntry,
    Metadata,
)
from vqzoo.errors import ArtifactError, UsageError, invalid_field
from vqzoo.plugin.files import FILE_PREFIX
from vqzoo.plugin.limits import MAX_CHILD_GROWTH, MAX_CODES_PER_WEIGHT, MAX_NUMEL

MAX_CONFIG_BYTES = 16 << 20


@dataclass(frozen=True)
class Artifact:
    """An artifact whose config and headers have been checked, but not its checksums.

    Attributes:
        folder: where it lies.
        config: the timm config, without its `vqzoo` block.
        block: that block.
        header: of the weights file.
        metadata: what that header says of the layers.
    """

    folder: Path
    config: dict[str, Any]
    block: ConfigBlock
    header: Header
    metadata: Metadata

    @property
    def weights_path(self) -> Path:
        """The weights file."""
        return self.folder / WEIGHTS_FILE

    def dense_tensors(self) -> dict[str, StoredTensor]:
        """The tensors that were left as they were."""
        return {k: t for k, t in self.header.tensors.items() if SEPARATOR not in k}

    def plugin_files(self) -> list[str]:
        """Names of the plugin files that it was made with: such an artifact is not published."""
        codes = [entry.code for entry in self.metadata.layers.values()]
        found: set[str] = set()
        while codes:
            code = codes.pop()
            codes += code.children.values()
            if code.plugin.startswith(FILE_PREFIX):
                found.add(code.plugin.removeprefix(FILE_PREFIX))
        return sorted(found)

    def layer_bytes(self, key: str) -> int:
        """Stored bytes of one compressed weight."""
        tensors = self.header.tensors
        return sum(
            tensors[name].nbytes for name, _ in layer_parts(key, self.metadata.layers[key].code)
        )


def open_artifact(folder: str | Path) -> Artifact:
    """Read config and headers (no weights, no torch) and check them against each other.

    Raises:
        UsageError: there is no such folder.
        ArtifactError: not an artifact, a newer format, malformed, or inconsistent.
    """
    folder = Path(folder)
    config = _read_config(folder)
    block = _validate(ConfigBlock, config.pop("vqzoo", None), f"the vqzoo block of {CONFIG_FILE}")
    _check_version(block.format_version, [])
    header = read_header(folder / WEIGHTS_FILE)
    if set(header.metadata) != {"vqzoo"}:
        raise ArtifactError(f"{WEIGHTS_FILE} does not carry exactly the metadata key 'vqzoo'")
    raw = strict_json(header.metadata["vqzoo"], f"the metadata of {WEIGHTS_FILE}")
    if isinstance(raw, dict):
        _check_version(raw.get("format_version"), raw.get("required_features", []))
    metadata = _validate(Metadata, raw, f"the metadata of {WEIGHTS_FILE}")
    if metadata.config_sha256 != sha256_text(canonical_json(config)):
        raise ArtifactError(f"{CONFIG_FILE} is not the one that {WEIGHTS_FILE} was written with")
    if metadata.record_sha256 not in (None, record_sha256(block.method, block.weights)):
        raise ArtifactError(
            f"method and weights in {CONFIG_FILE} are not what {WEIGHTS_FILE} was written with"
        )
    if block.bytes != header.file_bytes:
        raise ArtifactError(
            f"{WEIGHTS_FILE} has {header.file_bytes} bytes where {CONFIG_FILE} says {block.bytes}"
        )
    _check_tensors(header, metadata)
    return Artifact(folder, config, block, header, metadata)


def verify_checksum(artifact: Artifact) -> None:
    """Compare the weights file with the sha256 of its config: integrity, not origin.

    Raises:
        ArtifactError: they differ.
    """
    if sha256_file(artifact.weights_path) != artifact.block.sha256:
        raise ArtifactError(
            f"{artifact.weights_path} is damaged: its sha256 is not the one in {CONFIG_FILE}"
        )


def layer_parts(
    key: str, code: CodeEntry, prefix: str = ""
) -> Iterator[tuple[str, IndicesEntry | FloatsEntry]]:
    """A layer's parts with the keys of their tensors."""
    for name, part in code.parts.items():
        yield f"{key}{SEPARATOR}{prefix}{name}", part
    for name, child in code.children.items():
        yield from layer_parts(key, child, f"{prefix}{name}.")


def code_entries(code: CodeEntry) -> Iterator[CodeEntry]:
    """A code and all that it is built from."""
    yield code
    for child in code.children.values():
        yield from code_entries(child)


def part_keys(key: str, entry: LayerEntry) -> list[str]:
    """Keys of the tensors that hold a layer's parts."""
    return [name for name, _ in layer_parts(key, entry.code)]


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder")
    if not path.is_file():
        raise ArtifactError(f"{folder} is not an artifact: it has no {CONFIG_FILE}")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ArtifactError(f"{path} is too large")
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from None
    config = strict_json(text, CONFIG_FILE)
    if not isinstance(config, dict) or "vqzoo" not in config:
        raise ArtifactError(f"{path} has no vqzoo block: it is not a vqzoo artifact")
    return config


def _check_version(version: Any, features: Any) -> None:
    if version != FORMAT_VERSION:
        raise ArtifactError(
            f"format version {version!r} is not known here (this vqzoo reads {FORMAT_VERSION}): "
            "upgrade vqzoo"
        )
    if features:
        raise ArtifactError(f"the artifact requires features unknown here: {features!r:.200}")


def _validate(model: type[Any], value: Any, what: str) -> Any:
    assert issubclass(model, BaseModel)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        field = invalid_field(error)
        where = f" at {field.name!r:.200}" if field.name else ""
        raise ArtifactError(f"{what} is malformed{where}: {field.reason}") from None


def _check_tensors(header: Header, metadata: Metadata) -> None:
    """Every part has its tensor, every tensor its owner, and all sizes agree."""
    claimed: set[str] = set()
    for key, entry in metadata.layers.items():
        if key in header.tensors:
            raise ArtifactError(f"{key!r} is stored both compressed and dense")
        m, n = entry.view
        if entry.code.shape != entry.view or math.prod(entry.shape) != m * n:
            raise ArtifactError(f"{key!r}: view {entry.view} does not fit shape {entry.shape}")
        _check_children(key, entry.code)
        _check_codes(key, entry)
        for name, part in layer_parts(key, entry.code):
            stored = header.tensors.get(name)
            if stored is None:
                raise ArtifactError(f"tensor {name!r} is missing from {WEIGHTS_FILE}")
            _check_part(name, part, stored)
            claimed.add(name)
    for name in header.tensors:
        if SEPARATOR in name and name not in claimed:
            raise ArtifactError(f"tensor {name!r} belongs to no layer")
    for alias, key in metadata.aliases.items():
        if key not in metadata.layers and (key not in header.tensors or SEPARATOR in key):
            raise ArtifactError(f"{alias!r} is an alias of {key!r}, which is not stored")
        if alias in metadata.layers or alias in header.tensors:
            raise ArtifactError(f"{alias!r} is both stored and an alias of {key!r}")


def _check_children(key: str, code: CodeEntry) -> None:
    for name, child in code.children.items():
        if math.prod(child.shape) > MAX_CHILD_GROWTH * math.prod(code.shape):
            raise ArtifactError(f"{key!r}: the child {name!r} of shape {child.shape} is too large")
        _check_children(key, child)


def _check_codes(key: str, entry: LayerEntry) -> None:
    """A few bytes of an entropy-coded stream may claim any number of codes: the layer bounds it."""
    parts = [part for _, part in layer_parts(key, entry.code) if isinstance(part, IndicesEntry)]
    codes = sum(math.prod(part.shape) for part in parts)
    if codes > MAX_CODES_PER_WEIGHT * math.prod(entry.shape):
        raise ArtifactError(f"{key!r} claims {codes} codes for {math.prod(entry.shape)} weights")


def _check_part(name: str, part: IndicesEntry | FloatsEntry, stored: StoredTensor) -> None:
    if isinstance(part, FloatsEntry):
        if stored.dtype != BY_NAME[part.dtype].stored_name or stored.shape != part.shape:
            raise ArtifactError(f"tensor {name!r} is not the {part.dtype} {part.shape} it claims")
    elif stored.dtype != "U8" or len(stored.shape) != 1:
        raise ArtifactError(f"tensor {name!r} is not a byte stream")
    elif math.prod(size for size in part.shape if size) > MAX_NUMEL:
        raise ArtifactError(f"tensor {name!r} claims {part.shape} codes")

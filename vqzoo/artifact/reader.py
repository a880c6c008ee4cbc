"""Read artifacts. Anyone may have written one, so everything is checked before it is used."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from vqzoo.artifact.consistency import check_tensors
from vqzoo.artifact.files import canonical_json, record_sha256, sha256_file, sha256_text
from vqzoo.artifact.header import Header, StoredTensor, read_header, strict_json
from vqzoo.artifact.layouts.compact import unpack_header
from vqzoo.artifact.parts import code_entries, part_keys
from vqzoo.artifact.schema import (
    COMPACT,
    CONFIG_FILE,
    FEATURES,
    FORMAT_VERSION,
    SEPARATOR,
    WEIGHTS_FILE,
    WEIGHTS_ONLY,
    ConfigBlock,
    Layout,
    Metadata,
)
from vqzoo.errors import ArtifactError, UsageError, invalid_field
from vqzoo.plugin.files import FILE_PREFIX

MAX_CONFIG_BYTES = 16 << 20

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class Artifact:
    """An artifact whose config and headers have been checked, but not its checksums.

    Attributes:
        folder: the artifact's folder.
        config: the timm config, without its `vqzoo` block.
        block: that block.
        header: the header of the weights file; that of the plain layout, whatever the file's is.
        metadata: the description of the layers in that header.
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

    @property
    def weights_only(self) -> bool:
        """Whether it has no architecture, and loads into a network that the user builds."""
        return WEIGHTS_ONLY in self.metadata.required_features

    @property
    def layout(self) -> Layout:
        """How its weights file is laid out."""
        return "compact" if COMPACT in self.metadata.required_features else "plain"

    def dense_tensors(self) -> dict[str, StoredTensor]:
        """The tensors that were not compressed, by state dict key."""
        return {k: t for k, t in self.header.tensors.items() if SEPARATOR not in k}

    def plugin_files(self) -> list[str]:
        """Names of the plugin files that made it; such an artifact cannot be published."""
        plugins = {
            code.plugin
            for entry in self.metadata.layers.values()
            for code in code_entries(entry.code)
        }
        return sorted(p.removeprefix(FILE_PREFIX) for p in plugins if p.startswith(FILE_PREFIX))

    def layer_bytes(self, key: str) -> int:
        """Stored bytes of one compressed weight."""
        names = part_keys(key, self.metadata.layers[key])
        return sum(self.header.tensors[name].nbytes for name in names)


def open_artifact(folder: str | Path) -> Artifact:
    """Read config and headers and check them against each other; no weights and no torch.

    Raises:
        UsageError: the folder does not exist.
        ArtifactError: not an artifact, a newer format, malformed, or inconsistent.
    """
    folder = Path(folder)
    config = _read_config(folder)
    block = _validate(ConfigBlock, config.pop("vqzoo", None), f"the vqzoo block of {CONFIG_FILE}")
    _check_version(block.format_version, [])
    header = read_header(folder / WEIGHTS_FILE)
    if set(header.metadata) != {"vqzoo"}:
        raise ArtifactError(f"the header of {WEIGHTS_FILE} must have one metadata key, 'vqzoo'")
    what = f"the metadata of {WEIGHTS_FILE}"
    raw = strict_json(header.metadata["vqzoo"], what)
    if isinstance(raw, dict):
        _check_version(raw.get("format_version"), raw.get("required_features", []))
        if COMPACT in raw.get("required_features", []):
            header, raw = unpack_header(folder / WEIGHTS_FILE, header, raw)
    metadata = _validate(Metadata, raw, what)
    _check_config(config, block, header, metadata)
    check_tensors(header, metadata)
    return Artifact(folder, config, block, header, metadata)


def verify_checksum(artifact: Artifact) -> None:
    """Compare the weights file with the sha256 in its config. This proves integrity, not origin.

    Raises:
        ArtifactError: they differ.
    """
    if sha256_file(artifact.weights_path) != artifact.block.sha256:
        raise ArtifactError(
            f"{artifact.weights_path} is damaged: its sha256 is not the one in {CONFIG_FILE}"
        )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder")
    if not path.is_file():
        raise ArtifactError(f"{folder} is not an artifact: it has no {CONFIG_FILE}")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ArtifactError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes")
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from None
    config = strict_json(text, CONFIG_FILE)
    if not isinstance(config, dict) or "vqzoo" not in config:
        raise ArtifactError(f"{path} has no vqzoo block: this is not a vqzoo artifact")
    return config


def _check_version(version: Any, features: Any) -> None:
    if version != FORMAT_VERSION:
        raise ArtifactError(
            f"the artifact has format version {version!r:.40}, but this vqzoo reads "
            f"{FORMAT_VERSION}: upgrade vqzoo"
        )
    names = features if isinstance(features, list) else [features]
    if unknown := [name for name in names if not isinstance(name, str) or name not in FEATURES]:
        raise ArtifactError(
            f"the artifact requires features that this vqzoo does not have: {unknown!r:.200}"
        )


def _validate(model: type[_Model], value: Any, what: str) -> _Model:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        field = invalid_field(error)
        where = f" at {field.name!r:.200}" if field.name else ""
        raise ArtifactError(f"{what} is malformed{where}: {field.reason}") from None


def _check_config(
    config: dict[str, Any], block: ConfigBlock, header: Header, metadata: Metadata
) -> None:
    """Check that config.json and the weights file were written together."""
    if metadata.config_sha256 != sha256_text(canonical_json(config)):
        raise ArtifactError(f"{CONFIG_FILE} is not the one that {WEIGHTS_FILE} was written with")
    if metadata.record_sha256 not in (None, record_sha256(block.method, block.weights)):
        raise ArtifactError(
            f"method and weights in {CONFIG_FILE} are not those that {WEIGHTS_FILE} was written "
            "with"
        )
    if WEIGHTS_ONLY in metadata.required_features and "architecture" in config:
        raise ArtifactError(
            f"{CONFIG_FILE} names an architecture, but {WEIGHTS_FILE} says that it has none"
        )
    if block.bytes != header.file_bytes:
        raise ArtifactError(
            f"{WEIGHTS_FILE} has {header.file_bytes} bytes, but {CONFIG_FILE} says {block.bytes}"
        )

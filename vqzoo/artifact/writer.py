"""Write `vqzoo.safetensors` and `config.json`, and compute their sizes."""

import json
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from vqzoo.artifact.dtypes import element_type
from vqzoo.artifact.encode import EncodedLayer
from vqzoo.artifact.files import (
    canonical_json,
    new_file,
    record_sha256,
    sha256_file,
    sha256_text,
    write_text,
)
from vqzoo.artifact.layouts.contents import Contents, compact_contents, stored_order
from vqzoo.artifact.rest import stored_rest
from vqzoo.artifact.schema import (
    COMPACT,
    CONFIG_FILE,
    FORMAT_VERSION,
    WEIGHTS_FILE,
    Layout,
    Proof,
    Rest,
)
from vqzoo.errors import VqzooError, one_line
from vqzoo.plugin.limits import MAX_EXPONENT

_EXPONENT_WIDTH = len(f"{-MAX_EXPONENT}")


@dataclass(frozen=True)
class WrittenArtifact:
    """Size in bytes and hex sha256 of the `vqzoo.safetensors` that was written."""

    file_bytes: int
    sha256: str


def write_artifact(
    folder: Path,
    model: nn.Module,
    layers: Sequence[EncodedLayer],
    config: Mapping[str, Any],
    *,
    method: str,
    weights: str,
    features: Sequence[str] = (),
    rest: Rest = "float32",
    layout: Layout = "plain",
    norms: Mapping[str, str] | None = None,
) -> WrittenArtifact:
    """Write an artifact into an existing folder.

    Args:
        folder: the folder.
        model: the entries of its state dict that `layers` do not replace are stored unchanged.
        layers: the compressed weights.
        config: a timm config (see `vqzoo.models.timm_config`), without a `vqzoo` block.
        method: the run's method, for the record.
        weights: where the dense weights came from, for the record.
        features: what a reader must have to read the artifact, beyond plain format 1.
        rest: how float32 tensors that stay dense are stored; see `stored_rest`.
        layout: how the weights file is laid out.
        norms: batch norm -> the layer that it was folded into, for the record.

    Raises:
        VqzooError: the state dict holds an entry that cannot be stored, or the disk is full.
    """
    dense, aliases = untouched_tensors(model, {layer.key for layer in layers})
    contents = file_contents(
        stored_rest(dense, rest),
        aliases,
        layers,
        sha256_text(canonical_json(config)),
        record_sha256(method, weights),
        features,
        layout,
        norms or {},
    )
    path = folder / WEIGHTS_FILE
    write_tensors(path, contents.tensors, {"vqzoo": contents.text})
    written = WrittenArtifact(path.stat().st_size, sha256_file(path))
    block = {
        "format_version": FORMAT_VERSION,
        "method": method,
        "file": WEIGHTS_FILE,
        "sha256": written.sha256,
        "bytes": written.file_bytes,
        "weights": weights,
    }
    _write_config(folder / CONFIG_FILE, {**config, "vqzoo": block})
    return written


def record_proof(folder: Path, proof: Proof) -> None:
    """Record in an artifact's config.json how it was proven to rebuild the network it came from."""
    path = folder / CONFIG_FILE
    config = json.loads(path.read_text(encoding="utf-8"))
    config["vqzoo"]["proof"] = proof.model_dump(mode="json")
    _write_config(path, config)


def _write_config(path: Path, config: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(config, indent=2) + "\n")


def file_contents(
    dense: Mapping[str, Tensor],
    aliases: Mapping[str, str],
    layers: Sequence[EncodedLayer],
    config_sha256: str,
    record_sha256: str,
    features: Sequence[str] = (),
    layout: Layout = "plain",
    norms: Mapping[str, str] | None = None,
    *,
    sizes_only: bool = False,
) -> Contents:
    """The tensors of a weights file, and the value of the one metadata key in its header.

    In the plain layout, spaces at the end of that value pad every exponent to four characters, so
    that the size of a file follows from shapes and options alone.

    Args:
        dense: the tensors that stay dense, as they are stored.
        aliases: keys that share the tensor of another key.
        layers: the compressed weights.
        config_sha256: of the config.
        record_sha256: of what the config says about the run.
        features: what a reader must have, beyond that of the layout.
        layout: of the file.
        norms: as `write_artifact` takes them.
        sizes_only: tensors with the right sizes are enough.
    """
    tensors = dict(dense)
    for layer in layers:
        tensors |= layer.tensors
    metadata = {
        "format_version": FORMAT_VERSION,
        "required_features": sorted({*features, *([COMPACT] if layout == "compact" else [])}),
        "config_sha256": config_sha256,
        "record_sha256": record_sha256,
        "layers": {layer.key: layer.entry for layer in layers},
        "aliases": aliases,
        **({"norms": dict(norms)} if norms else {}),
    }
    if layout == "compact":
        return compact_contents(metadata, tensors, sizes_only=sizes_only)
    exponents = (exponent for layer in layers for exponent in _exponents(layer.entry["code"]))
    padding = sum(_EXPONENT_WIDTH - len(str(exponent)) for exponent in exponents)
    return Contents(tensors, canonical_json(metadata) + " " * padding)


def _exponents(code: Mapping[str, Any]) -> Iterator[int]:
    for part in code["parts"].values():
        if part["kind"] == "floats":
            yield part["exponent"]
    for child in code["children"].values():
        yield from _exponents(child)


def untouched_tensors(
    model: nn.Module, replaced: set[str]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Split the entries of a state dict that stay dense into tensors and aliases.

    Args:
        replaced: keys of the weights that are compressed. A key that shares the tensor of one of
            them is its alias, whichever comes first in the model.

    Returns:
        Key -> tensor, contiguous on the CPU, each with a storage of its own; and key -> the key
        whose tensor it shares.

    Raises:
        VqzooError: an entry is not a tensor.
    """
    state = model.state_dict()
    for key, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise VqzooError(f"the state dict entry {key!r} cannot be stored: it is not a tensor")
    owners = {_location(state[key]): key for key in state if key in replaced}
    dense: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    storages: set[int] = set()
    for key, tensor in state.items():
        if key in replaced:
            continue
        owner = owners.setdefault(_location(tensor), key)
        if owner != key and tensor.numel():
            aliases[key] = owner
        else:
            dense[key] = _unshared(tensor, storages)
    return dense, aliases


def _location(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _unshared(tensor: Tensor, storages: set[int]) -> Tensor:
    """The tensor, contiguous on the CPU; a copy if its storage is larger or among `storages`.

    safetensors refuses tensors that share a storage.
    """
    tensor = tensor.detach().cpu().contiguous()
    storage = tensor.untyped_storage()
    whole = storage.nbytes() == tensor.numel() * tensor.element_size()
    if not whole or storage.data_ptr() in storages:
        return tensor.clone()
    storages.add(storage.data_ptr())
    return tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file whole or not at all.

    Raises:
        VqzooError: the disk is full, or the folder is not writable.
    """
    with new_file(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # follows the umask; safetensors makes files private
        try:
            save_file(dict(tensors), temporary, metadata=metadata)
        except SafetensorError as error:
            raise VqzooError(f"cannot write {path}: {one_line(error)}") from error
        temporary.chmod(stat.S_IMODE(mode))


def dense_bytes(model: nn.Module) -> int:
    """Size in bytes of the safetensors file that holds the whole state dict, floats in float32."""
    tensors, _ = untouched_tensors(model, set())
    return file_bytes(
        {
            key: torch.empty_like(
                tensor, dtype=torch.float32 if tensor.is_floating_point() else None, device="meta"
            )
            for key, tensor in tensors.items()
        }
    )


def file_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> int:
    """Compute the size in bytes of the safetensors file that `write_tensors` would write.

    Args:
        tensors: the tensors; they may be on the meta device.
        metadata: the metadata in the header.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for key in stored_order(tensors):
        tensor = tensors[key]
        size = tensor.numel() * tensor.element_size()
        header[key] = {
            "dtype": element_type(tensor.dtype).stored_name,
            "shape": list(tensor.shape),
            "data_offsets": [position, position + size],
        }
        position += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False)
    return 8 + -(-len(text.encode()) // 8) * 8 + position

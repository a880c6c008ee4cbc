"""Writes `vqzoo.safetensors` and `config.json`."""

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

from vqzoo.artifact.dtypes import ELEMENT_TYPES, element_type
from vqzoo.artifact.encode import EncodedLayer
from vqzoo.artifact.files import (
    canonical_json,
    new_file,
    record_sha256,
    sha256_file,
    sha256_text,
    write_text,
)
from vqzoo.artifact.schema import CONFIG_FILE, FORMAT_VERSION, WEIGHTS_FILE
from vqzoo.errors import VqzooError, one_line
from vqzoo.plugin.limits import MAX_EXPONENT

_EXPONENT_DIGITS = len(f"{-MAX_EXPONENT}")


@dataclass(frozen=True)
class WrittenArtifact:
    """What was written: bytes of `vqzoo.safetensors` and its sha256."""

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
) -> WrittenArtifact:
    """Write an artifact into an existing folder.

    Args:
        model: everything of its state dict that `layers` do not replace is stored as it is.
        config: a timm config (see `vqzoo.models.timm_config`), without a `vqzoo` block.
        method: the run's method, for the record.
        weights: where the dense weights came from, for the record.
    """
    dense, aliases = untouched_tensors(model, {layer.key for layer in layers})
    metadata = metadata_text(
        layers, aliases, sha256_text(canonical_json(config)), record_sha256(method, weights)
    )
    tensors = dict(dense)
    for layer in layers:
        tensors |= layer.tensors
    path = folder / WEIGHTS_FILE
    write_tensors(path, tensors, {"vqzoo": metadata})
    written = WrittenArtifact(path.stat().st_size, sha256_file(path))
    block = {
        "format_version": FORMAT_VERSION,
        "method": method,
        "file": WEIGHTS_FILE,
        "sha256": written.sha256,
        "bytes": written.file_bytes,
        "weights": weights,
    }
    write_text(folder / CONFIG_FILE, json.dumps({**config, "vqzoo": block}, indent=2) + "\n")
    return written


def metadata_text(
    layers: Sequence[EncodedLayer],
    aliases: Mapping[str, str],
    config_sha256: str,
    record_sha256: str,
) -> str:
    """The value of the header's one metadata key.

    Spaces at its end make up for the digits that exponents lack, so that the size of a file follows
    from shapes and options alone.
    """
    metadata = {
        "format_version": FORMAT_VERSION,
        "required_features": [],
        "config_sha256": config_sha256,
        "record_sha256": record_sha256,
        "layers": {layer.key: layer.entry for layer in layers},
        "aliases": aliases,
    }
    exponents = (one for layer in layers for one in _exponents(layer.entry["code"]))
    lacking = sum(_EXPONENT_DIGITS - len(str(exponent)) for exponent in exponents)
    return canonical_json(metadata) + " " * lacking


def _exponents(code: Mapping[str, Any]) -> Iterator[int]:
    for part in code["parts"].values():
        if part["kind"] == "floats":
            yield part["exponent"]
    for child in code["children"].values():
        yield from _exponents(child)


def untouched_tensors(
    model: nn.Module, replaced: set[str]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a state dict that stay dense, and the keys that share another's tensor.

    What shares the tensor of a replaced key is its alias, whichever comes first in the model.
    """
    state = model.state_dict()
    for key, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise VqzooError(f"the state dict entry {key!r} is not a tensor: it cannot be stored")
    first = {_place(state[key]): key for key in state if key in replaced}
    dense: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    storages: set[int] = set()
    for key, tensor in state.items():
        if key in replaced:
            continue
        owner = first.setdefault(_place(tensor), key)
        if owner != key and tensor.numel():
            aliases[key] = owner
        else:
            dense[key] = _own(tensor, storages)
    return dense, aliases


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _own(tensor: Tensor, storages: set[int]) -> Tensor:
    """A contiguous tensor that shares no storage with a larger one, nor any of `storages`."""
    tensor = tensor.detach().cpu().contiguous()
    storage = tensor.untyped_storage()
    whole = storage.nbytes() == tensor.numel() * tensor.element_size()
    if not whole or storage.data_ptr() in storages:
        return tensor.clone()
    storages.add(storage.data_ptr())
    return tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file whole.

    Raises:
        VqzooError: the disk is full or the folder cannot be written.
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
    """Size of the safetensors file that holds the whole state dict, floating tensors in fp32."""
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
    """Size of the safetensors file that `write_tensors` would make; the values are not looked at.

    Args:
        tensors: they may be on the meta device.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    types = {key: element_type(tensor.dtype) for key, tensor in tensors.items()}
    for key in sorted(tensors, key=lambda key: (ELEMENT_TYPES.index(types[key]), key)):
        tensor = tensors[key]
        size = tensor.numel() * tensor.element_size()
        header[key] = {
            "dtype": types[key].stored_name,
            "shape": list(tensor.shape),
            "data_offsets": [position, position + size],
        }
        position += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False)
    return 8 + -(-len(text.encode()) // 8) * 8 + position

"""Codes to the tensors and JSON of a file, one layer at a time."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vqzoo.artifact.dtypes import element_type
from vqzoo.artifact.schema import SEPARATOR
from vqzoo.errors import PluginError
from vqzoo.plugin.code import Indices, MethodCode
from vqzoo.plugin.isolation import isolated, named
from vqzoo.plugin.manager import Plugins
from vqzoo.plugin.packing import Packing
from vqzoo.plugin.registry import Registered

FIXED_WIDTH = "bits"  # the packing whose streams are as long as cardinality and count say


@dataclass(frozen=True)
class EncodedLayer:
    """A compressed weight as the file holds it.

    Attributes:
        key: of the weight in the state dict, "features.3.weight".
        entry: JSON of a `LayerEntry`.
        tensors: file key -> tensor: packed streams as uint8, floats in their storage dtype.
    """

    key: str
    entry: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors: codes, codebooks, scales."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


def encode_layer(
    key: str,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    compressed: MethodCode,
    options: Mapping[str, Any],
    packing: str,
    plugins: Plugins,
    transforms: Sequence[tuple[str, Mapping[str, Any]]] = (),
) -> EncodedLayer:
    """Pack a layer's codes and describe them.

    Args:
        transforms: name and options of each that ran before the method, for the record.
    """
    tensors: dict[str, Tensor] = {}
    code = _encode_code(compressed, key + SEPARATOR, packing, plugins, tensors)
    return _encoded(key, shape, dtype, code, options, tensors, tensors_sha256(tensors), transforms)


def encode_layout(
    key: str,
    shape: tuple[int, ...],
    layout: MethodCode,
    options: Mapping[str, Any],
    packing: str,
    plugins: Plugins,
) -> EncodedLayer:
    """What `encode_layer` will make of a float32 weight, as far as sizes go: exactly in the packing
    `bits`, at most in another.

    Args:
        layout: a code whose tensors are on the meta device, and so are the result's.
    """
    tensors: dict[str, Tensor] = {}
    code = _encode_code(layout, key + SEPARATOR, packing, plugins, tensors)
    return _encoded(key, shape, torch.float32, code, options, tensors, "0" * 64, ())


def _encoded(
    key: str,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    code: dict[str, Any],
    options: Mapping[str, Any],
    tensors: dict[str, Tensor],
    sha256: str,
    transforms: Sequence[tuple[str, Mapping[str, Any]]],
) -> EncodedLayer:
    entry: dict[str, Any] = {
        "shape": list(shape),
        "dtype": element_type(dtype).name,
        "view": code["shape"],
        "options": dict(options),
        "code": code,
        "sha256": sha256,
    }
    if transforms:
        entry["transforms"] = [{"name": name, "options": dict(o)} for name, o in transforms]
    return EncodedLayer(key, entry, tensors)


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hex sha256 over the bytes of tensors, in the order of their sorted keys."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        data = tensors[key].detach().contiguous().cpu()
        digest.update(data.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _encode_code(
    compressed: MethodCode, prefix: str, packing: str, plugins: Plugins, tensors: dict[str, Tensor]
) -> dict[str, Any]:
    method = plugins.method(compressed.method)
    code = compressed.code
    parts: dict[str, Any] = {}
    for name, part in code.parts.items():
        if isinstance(part, Indices):
            packer, tensors[prefix + name] = _smaller(packing, part, prefix + name, plugins)
            parts[name] = {
                "kind": "indices",
                "shape": list(part.values.shape),
                "cardinality": part.cardinality,
                "packing": packer.name,
                "packing_version": packer.item.version,
            }
        else:
            stored = part.stored.detach()
            tensors[prefix + name] = stored if stored.is_meta else stored.cpu().contiguous()
            parts[name] = {
                "kind": "floats",
                "shape": list(part.stored.shape),
                "dtype": part.dtype,
                "exponent": part.exponent,
            }
    return {
        "method": method.name,
        "method_version": method.item.version,
        "plugin": method.origin.distribution,
        "plugin_version": method.origin.version,
        "shape": list(code.shape),
        "facts": dict(code.facts),
        "parts": parts,
        "children": {
            name: _encode_code(child, f"{prefix}{name}.", packing, plugins, tensors)
            for name, child in code.children.items()
        },
    }


def _smaller(
    packing: str, part: Indices, key: str, plugins: Plugins
) -> tuple[Registered[Packing], Tensor]:
    """The packing asked for and its stream; fixed width where that stream would not be smaller."""
    asked = plugins.packings.get(packing)
    fixed = plugins.packings.claims(FIXED_WIDTH)
    size = -(-part.values.numel() * part.bits // 8)
    if part.values.is_meta:  # the most that it can come to, in the header too
        either = [asked, *fixed] if len(fixed) == 1 else [asked]
        longest = max(either, key=lambda packer: len(packer.name + packer.item.version))
        return longest, torch.empty(size, dtype=torch.uint8, device="meta")
    stream = _pack(asked, part, key)
    expands = stream.numel() >= size
    if not expands or asked.name == FIXED_WIDTH or len(fixed) != 1:
        return asked, stream
    return fixed[0], _pack(fixed[0], part, key)


def _pack(packer: Registered[Packing], part: Indices, key: str) -> Tensor:
    """The stream of a part, unpacked again to see that nothing was lost.

    Raises:
        PluginError: the packing failed, or is not lossless.
    """
    who = f"packing {named(packer)} of {key}"
    flat = part.values.reshape(-1).cpu()
    with isolated(who):
        stream = packer.item.pack(flat, part.cardinality)
        sound = stream.dtype == torch.uint8 and stream.dim() == 1
        again = packer.item.unpack(stream, part.cardinality, flat.numel()) if sound else None
    if again is None:
        raise PluginError(f"{who} did not give a 1-D uint8 tensor")
    if again.shape != flat.shape or not torch.equal(again.to(flat.dtype), flat):
        raise PluginError(f"{who} does not give the codes back")
    return stream

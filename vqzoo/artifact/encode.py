"""Turn the codes of a layer into the tensors and the JSON that a file holds."""

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

FIXED_WIDTH = "bits"  # the packing whose stream length follows from cardinality and count


@dataclass(frozen=True)
class EncodedLayer:
    """A compressed weight as a file holds it.

    Attributes:
        key: the weight's key in the state dict, "features.3.weight".
        entry: the JSON of a `LayerEntry`.
        tensors: tensor key -> tensor; packed streams are uint8, floats have their storage dtype.
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
    packing: str | None,
    plugins: Plugins,
    transforms: Sequence[tuple[str, Mapping[str, Any]]] = (),
) -> EncodedLayer:
    """Pack a layer's codes and describe them.

    Args:
        key: the weight's key in the state dict.
        shape: of the dense weight.
        dtype: of the dense weight.
        compressed: the code.
        options: the method's options as used, for the record.
        packing: name of the packing for integer codes; None for that of each method.
        plugins: the plugins that provide methods and packings.
        transforms: name and options of each transform that ran before the method, first one first,
            for the record.

    Raises:
        PluginError: the packing failed, or is not lossless.
    """
    tensors: dict[str, Tensor] = {}
    code = _encode_code(compressed, key + SEPARATOR, packing, plugins, tensors)
    return _encoded(key, shape, dtype, code, options, tensors, tensors_sha256(tensors), transforms)


def encode_layout(
    key: str,
    shape: tuple[int, ...],
    layout: MethodCode,
    options: Mapping[str, Any],
    packing: str | None,
    plugins: Plugins,
) -> EncodedLayer:
    """Compute the sizes that `encode_layer` will give for a float32 weight: exact with the packing
    `bits`, an upper bound with any other.

    Args:
        layout: a code whose tensors are on the meta device; those of the result are, too.
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
    compressed: MethodCode,
    prefix: str,
    packing: str | None,
    plugins: Plugins,
    tensors: dict[str, Tensor],
) -> dict[str, Any]:
    method = plugins.method(compressed.method)
    chosen = packing or method.item.packing
    code = compressed.code
    parts: dict[str, Any] = {}
    for name, part in code.parts.items():
        if isinstance(part, Indices):
            used, tensors[prefix + name] = _pack_smaller(chosen, part, prefix + name, plugins)
            parts[name] = {
                "kind": "indices",
                "shape": list(part.values.shape),
                "cardinality": part.cardinality,
                "packing": used.name,
                "packing_version": used.item.version,
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
        "method_version": method.item.version_of(code),
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


def _pack_smaller(
    name: str, part: Indices, key: str, plugins: Plugins
) -> tuple[Registered[Packing], Tensor]:
    """Pack with the packing `name`, or with fixed width if that takes no more bytes.

    Returns:
        The packing used, and its stream.
    """
    packing = plugins.packings.get(name)
    fixed = plugins.packings.claims(FIXED_WIDTH)
    fixed_size = -(-part.values.numel() * part.bits // 8)
    if part.values.is_meta:  # an upper bound, for the header's text as well
        candidates = [packing, *fixed] if len(fixed) == 1 else [packing]
        longest = max(candidates, key=lambda entry: len(entry.name + entry.item.version))
        return longest, torch.empty(fixed_size, dtype=torch.uint8, device="meta")
    stream = _pack(packing, part, key)
    if stream.numel() < fixed_size or packing.name == FIXED_WIDTH or len(fixed) != 1:
        return packing, stream
    return fixed[0], _pack(fixed[0], part, key)


def _pack(packing: Registered[Packing], part: Indices, key: str) -> Tensor:
    """Pack a part, and unpack the stream to verify that nothing was lost.

    Raises:
        PluginError: the packing failed, or is not lossless.
    """
    who = f"packing {named(packing)} of {key}"
    values = part.values.cpu()
    shape = tuple(values.shape)
    with isolated(who):
        stream = packing.item.pack_part(values, part.cardinality)
        valid = stream.dtype == torch.uint8 and stream.dim() == 1
        unpacked = packing.item.unpack_part(stream, part.cardinality, shape) if valid else None
    if unpacked is None:
        raise PluginError(f"{who} did not return a 1-D uint8 tensor")
    if unpacked.shape != shape or not torch.equal(unpacked.to(values.dtype), values):
        raise PluginError(f"{who} is not lossless: unpacking gives other codes")
    return stream

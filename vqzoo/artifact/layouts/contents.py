"""What a weights file holds in each layout: its tensors, and the metadata in its header."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vqzoo.artifact.dtypes import ELEMENT_TYPES, element_type
from vqzoo.artifact.files import canonical_json
from vqzoo.artifact.layouts.compact import (
    DATA,
    INDEX,
    MAX_CONSTANTS,
    Number,
    constant_type,
    pack_index,
)
from vqzoo.artifact.schema import SEPARATOR


@dataclass(frozen=True)
class Contents:
    """Tensors of a file by name, and the text of the one metadata key in its header."""

    tensors: dict[str, Tensor]
    text: str


def stored_order(tensors: Mapping[str, Tensor]) -> list[str]:
    """The keys of tensors in the order in which safetensors lays them out."""
    types = {key: ELEMENT_TYPES.index(element_type(t.dtype)) for key, t in tensors.items()}
    return sorted(tensors, key=lambda key: (types[key], key))


def compact_contents(
    metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], *, sizes_only: bool = False
) -> Contents:
    """The contents of a compact file.

    Args:
        metadata: of the plain layout.
        tensors: of the plain layout, on the CPU; vectors with one value are not stored.
        sizes_only: the tensor with the bytes of all others is on the meta device.
    """
    entries, stored = [], []
    constants = 0
    for key in stored_order(tensors):
        tensor = tensors[key]
        value = None if SEPARATOR in key else _constant(tensor)
        if value is not None and constants + tensor.numel() <= MAX_CONSTANTS:
            constants += tensor.numel()
        else:
            value = None
            stored.append(tensor)
        entries.append((key, element_type(tensor.dtype).stored_name, tuple(tensor.shape), value))
    kept, index = pack_index(metadata, entries)
    if sizes_only:
        data = torch.empty(sum(t.nbytes for t in stored), dtype=torch.uint8, device="meta")
    else:
        data = torch.cat([_bytes(t) for t in stored] or [torch.empty(0, dtype=torch.uint8)])
    packed = torch.frombuffer(bytearray(index), dtype=torch.uint8)
    return Contents({DATA: data, INDEX: packed}, canonical_json(kept))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _constant(tensor: Tensor) -> Number | None:
    """The value of all elements of a scalar or a vector; None where they differ in a bit, or where
    JSON has no number for it."""
    if tensor.dim() > 1 or not tensor.numel():
        return None
    values = _bytes(tensor).view(tensor.numel(), -1)
    if not torch.equal(values, values[:1].expand_as(values)):
        return None
    element = element_type(tensor.dtype)
    value: Number = constant_type(element)(tensor.reshape(-1)[0].item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if 0 <= value < 1 << 8 * element.itemsize - 1 else None

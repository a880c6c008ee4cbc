"""Weights that a network decodes by torch's own operations from packed codes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization

from vqzoo.compression.decode import reconstruct
from vqzoo.numerics.decoding.planes import from_planes, to_planes
from vqzoo.plugin.code import Floats, Indices, MethodCode, Part
from vqzoo.plugin.formats.weight_form import LookUp, TwoFactors
from vqzoo.plugin.manager import Plugins


class PackedWeight(nn.Module):
    """Decodes a weight in its forward pass.

    Its buffers are the code's parts: integers in planes of at most 8 bits, see
    `vqzoo.numerics.decoding.planes`, floats in the dtype that they are stored in. A method's
    `reconstruct` decodes them, so that torch can trace it for any method that says what it computes
    in torch's operations.
    """

    def __init__(
        self, code: MethodCode, shape: torch.Size, dtype: torch.dtype, plugins: Plugins
    ) -> None:
        super().__init__()
        self._shape, self._dtype, self._plugins = shape, dtype, plugins
        self._code = self._packed(code, "")

    def code(self) -> MethodCode:
        """The code that the weight is decoded from."""
        return self._unpacked(self._code, "")

    def form(self, compressed: MethodCode) -> LookUp | TwoFactors | None:
        """The form of what `code` gave, if its method says it in one; see `Method.form`."""
        return self._plugins.method(compressed.method).item.form(compressed.code)

    def forward(self, placeholder: Tensor) -> Tensor:
        """The weight; its placeholder is not used."""
        matrix = reconstruct(self._unpacked(self._code, ""), {}, self._plugins)
        return matrix.view(self._shape).to(self._dtype)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """An empty tensor to stand where the weight was."""
        return weight.new_empty(0)

    def _packed(self, code: MethodCode, prefix: str) -> MethodCode:
        """The code without values; they become buffers."""
        parts: dict[str, Part] = {}
        for name, part in code.code.parts.items():
            buffer = f"{prefix}{name}"
            if isinstance(part, Floats):
                self.register_buffer(buffer, part.stored)
                parts[name] = replace(part, stored=part.stored.to("meta"))
                continue
            for place, plane in enumerate(to_planes(part.values, part.bits)):
                self.register_buffer(plane_buffer(buffer, place), plane)
            parts[name] = replace(part, values=part.values.to("meta"))
        children = {
            name: self._packed(child, f"{prefix}{name}__")
            for name, child in code.code.children.items()
        }
        return _with(code, parts, children)

    def _unpacked(self, code: MethodCode, prefix: str) -> MethodCode:
        parts: dict[str, Part] = {}
        for name, part in code.code.parts.items():
            buffer = f"{prefix}{name}"
            if isinstance(part, Floats):
                parts[name] = replace(part, stored=self.get_buffer(buffer))
                continue
            parts[name] = replace(part, values=self._codes(part, buffer))
        children = {
            name: self._unpacked(child, f"{prefix}{name}__")
            for name, child in code.code.children.items()
        }
        return _with(code, parts, children)

    def _codes(self, part: Indices, buffer: str) -> Tensor:
        planes: list[Tensor] = []
        while (plane := self._buffers.get(plane_buffer(buffer, len(planes)))) is not None:
            planes.append(plane)
        return from_planes(planes, part.bits, tuple(part.values.shape))


def plane_buffer(part: str, place: int) -> str:
    """The name of the buffer of `PackedWeight` with a plane of a part."""
    return f"{part}__{place}"


def _with(
    code: MethodCode, parts: Mapping[str, Part], children: Mapping[str, MethodCode]
) -> MethodCode:
    return replace(code, code=replace(code.code, parts=parts, children=children))


def packed_codes(model: nn.Module) -> dict[str, MethodCode]:
    """Key in the state dict -> code of each weight that a network decodes itself."""
    return {
        f"{path}.{name}" if path else name: chain[0].code()
        for path, module in model.named_modules()
        if is_parametrized(module)
        for name, chain in module.parametrizations.items()
        if isinstance(chain[0], PackedWeight)
    }


def decode_in_graph(model: nn.Module, codes: Mapping[str, MethodCode], plugins: Plugins) -> None:
    """Let a network decode weights from packed codes whenever it reads them, in place.

    Args:
        model: the network with dense weights.
        codes: parameters' keys in the state dict, and the code of each.
        plugins: the installed methods.
    """
    for key, code in codes.items():
        path, _, name = key.rpartition(".")
        module: Any = model.get_submodule(path)
        weight = getattr(module, name)
        packed = PackedWeight(code, weight.shape, weight.dtype, plugins)
        register_parametrization(module, name, packed, unsafe=True)

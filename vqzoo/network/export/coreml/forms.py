"""How the compressed weights of a network are stored for Apple's runtimes."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from vqzoo.network.export.coreml.palette import (
    Palette,
    palette,
    palette_of_values,
    with_int8_table,
)
from vqzoo.network.export.coreml.two_layers import as_two_layers
from vqzoo.network.export.packed_weight import PackedWeight
from vqzoo.network.export.record import DenseWeight, Tables
from vqzoo.plugin import LookUp, MethodCode, TwoFactors


@dataclass
class Forms:
    """How the compressed weights of a network are stored, by key in its state dict."""

    palettes: dict[str, Palette]
    factors: dict[str, TwoFactors]
    dense: dict[str, str]

    @property
    def int8_tables(self) -> int:
        """How many palettes have tables of int8."""
        return sum(palette.table_scale is not None for palette in self.palettes.values())


def take_forms(model: nn.Module, tables: Tables) -> Forms:
    """Read the codes of a network, and put decoded weights in their places.

    Args:
        model: the network, its weights dense or decoded by `PackedWeight`; it is changed.
        tables: the dtype of palettes' entries.
    """
    forms = Forms({}, {}, {})
    for path, module in list(model.named_modules()):
        if not is_parametrized(module):
            continue
        for name in list(module.parametrizations):
            packed = module.parametrizations[name][0]
            if not isinstance(packed, PackedWeight):
                continue
            compressed = packed.code()
            key = f"{path}.{name}" if path else name
            with torch.no_grad():
                remove_parametrizations(module, name, leave_parametrized=True)
            weight: Tensor = getattr(module, name).detach()
            form = packed.form(compressed)
            if isinstance(form, TwoFactors):
                forms.factors[key] = form
                continue
            stored = _stored(form, compressed, weight)
            if isinstance(stored, Palette):
                forms.palettes[key] = stored if tables == "float16" else with_int8_table(stored)
            else:
                forms.dense[key] = stored
    return forms


def _stored(form: LookUp | None, compressed: MethodCode, weight: Tensor) -> Palette | str:
    """The palette of a weight, by its form or by its values; or why there is none."""
    shape = tuple(weight.shape)
    reason = f"{compressed.method} has codes that Core ML does not decode"
    if form is not None:
        stored = palette(form, shape)
        if isinstance(stored, Palette):
            return stored
        reason = stored
    by_values = palette_of_values(weight.reshape(compressed.code.shape))
    stored = reason if by_values is None else palette(by_values, shape)
    return stored if isinstance(stored, Palette) else reason


def split_products(model: nn.Module, forms: Forms) -> None:
    """Put two layers in the place of those whose weights are products."""
    for key, factors in list(forms.factors.items()):
        path, _, name = key.rpartition(".")
        layers = as_two_layers(model.get_submodule(path), factors) if name == "weight" else None
        if layers is None or not path:
            del forms.factors[key]
            forms.dense[key] = "only linear layers and convolutions in one group become two layers"
        else:
            model.set_submodule(path, layers)


def told(dense: Mapping[str, str], state: Mapping[str, Tensor]) -> tuple[DenseWeight, ...]:
    """What the record says of weights that are dense, by key, with the reasons."""
    return tuple(
        DenseWeight(key, 2 * state[key].numel(), why) for key, why in sorted(dense.items())
    )

"""Core ML packages, written without a Mac and checked by decoding what was written."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from vqzoo.errors import VqzooError
from vqzoo.network.export.compare import TOLERANCE, compare, example_images
from vqzoo.network.export.coreml.palette import Palette, palette, palette_of_values
from vqzoo.network.export.coreml.program import (
    program_of,
    put_palettes,
    save_program,
    saved_name,
    saved_weights,
)
from vqzoo.network.export.coreml.two_layers import as_two_layers
from vqzoo.network.export.packed_weight import PackedWeight
from vqzoo.network.export.record import Check, DenseWeight, Written
from vqzoo.plugin import LookUp, MethodCode, TwoFactors
from vqzoo.plugin.manager import Plugins, installed_plugins

FOLDER = "model.mlpackage"
PACKAGES = ("coremltools",)
# Of a weight's largest value: tables and scales are rounded to float16, and so is their product.
WEIGHT_TOLERANCE = 2e-3


@dataclass
class _Forms:
    """How the compressed weights of a network are stored, by key in its state dict."""

    palettes: dict[str, Palette]
    factors: dict[str, TwoFactors]
    dense: dict[str, str]


def write_coreml(model: nn.Module, dense: nn.Module, folder: Path) -> Written:
    """Write model.mlpackage for one image, and compare the weights that coremltools decodes from it
    with the artifact's.

    Args:
        model: the network, its weights dense or decoded by `PackedWeight`; it is changed.
        dense: another copy of the network, with decoded weights.
        folder: where to write.

    Raises:
        VqzooError: coremltools cannot convert the network, or a weight that was written differs
            from the artifact's.
    """
    forms = _forms(model, installed_plugins())
    _split(model, forms)
    if forms.factors:
        compare(torch.no_grad()(model), dense, "torch", "the network of two layers", TOLERANCE)
    program = program_of(model, example_images(model, 1))
    for key in put_palettes(program, forms.palettes):
        forms.dense[key] = "the converter keeps no constant of its shape"
    path = folder / FOLDER
    save_program(program, path)
    error = _largest_error(path, model, set(forms.palettes) - set(forms.dense))
    check = Check(
        runtime=f"coremltools {version('coremltools')}",
        error=error,
        tolerance=WEIGHT_TOLERANCE,
        compared="weights",
    )
    facts = (
        ("target", "iOS18"),
        ("palettes", len(set(forms.palettes) - set(forms.dense))),
        ("two_layers", len(forms.factors)),
    )
    return Written(check, facts, _told(forms.dense, dense.state_dict()))


def _forms(model: nn.Module, plugins: Plugins) -> _Forms:
    """Read the codes of a network, and put decoded weights in their places."""
    forms = _Forms({}, {}, {})
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
            form = plugins.method(compressed.method).item.form(compressed.code)
            if isinstance(form, TwoFactors):
                forms.factors[key] = form
                continue
            stored = _stored(form, compressed, weight)
            if isinstance(stored, Palette):
                forms.palettes[key] = stored
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


def _split(model: nn.Module, forms: _Forms) -> None:
    """Put two layers in the place of those whose weights are products."""
    for key, factors in list(forms.factors.items()):
        path, _, name = key.rpartition(".")
        layers = as_two_layers(model.get_submodule(path), factors) if name == "weight" else None
        if layers is None or not path:
            del forms.factors[key]
            forms.dense[key] = "only linear layers and convolutions in one group become two layers"
        else:
            model.set_submodule(path, layers)


def _largest_error(path: Path, model: nn.Module, keys: set[str]) -> float:
    """The largest error of a weight, relative to its layer's largest.

    Raises:
        VqzooError: it is beyond the tolerance, or a weight is not in the package.
    """
    written = saved_weights(path)
    state = model.state_dict()
    largest = 0.0
    for key in sorted(keys):
        expected, values = state[key].numpy(), written.get(saved_name(key))
        if values is None or values.shape != expected.shape:
            raise VqzooError(f"{FOLDER} does not hold the weight {key}")
        peak = max(float(np.abs(expected).max()), torch.finfo(torch.float32).tiny)
        error = float(np.abs(values - expected).max()) / peak
        if not error <= WEIGHT_TOLERANCE:
            raise VqzooError(f"{FOLDER}: {key} differs by {error:.1e} of its largest weight")
        largest = max(largest, error)
    return largest


def _told(dense: Mapping[str, str], state: Mapping[str, Tensor]) -> tuple[DenseWeight, ...]:
    return tuple(
        DenseWeight(key, 2 * state[key].numel(), why) for key, why in sorted(dense.items())
    )

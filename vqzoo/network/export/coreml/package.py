"""Core ML packages, written without a Mac and checked by decoding what was written."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vqzoo.errors import VqzooError
from vqzoo.network.export.compare import TOLERANCE, compare, example_images
from vqzoo.network.export.coreml.forms import split_products, take_forms, told
from vqzoo.network.export.coreml.program import (
    program_of,
    put_palettes,
    save_program,
    saved_constants,
    saved_name,
)
from vqzoo.network.export.record import Check, Tables, Written

FOLDER = "model.mlpackage"
PACKAGES = ("coremltools",)
# Of a weight's largest value: tables and scales are rounded to float16, and so is their product;
# int8 adds half a step of 1/127.
WEIGHT_TOLERANCES: dict[Tables, float] = {"float16": 2e-3, "int8": 6e-3}
# Of the largest logit, by the constants alone.
LOGIT_TOLERANCES: dict[Tables, float] = {"float16": 2e-2, "int8": 1e-1}


def write_coreml(
    model: nn.Module, dense: nn.Module, folder: Path, tables: Tables = "float16"
) -> Written:
    """Write model.mlpackage for one image, and compare the weights that coremltools decodes from it
    with the artifact's.

    Args:
        model: the network, its weights dense or decoded by `PackedWeight`; it is changed.
        dense: another copy of the network, with decoded weights.
        folder: where to write.
        tables: the dtype of palettes' entries.

    Raises:
        VqzooError: coremltools cannot convert the network, or a weight that was written differs
            from the artifact's.
    """
    forms = take_forms(model, tables)
    split_products(model, forms)
    if forms.factors:
        compare(torch.no_grad()(model), dense, "torch", "the network of two layers", TOLERANCE)
    program = program_of(model, example_images(model, 1))
    for key in put_palettes(program, forms.palettes):
        forms.dense[key] = "the converter keeps no constant of its shape"
    path = folder / FOLDER
    save_program(program, path)
    written = saved_constants(path)
    error = _largest_error(written, model, set(forms.palettes) - set(forms.dense), tables)
    logits = _compare_logits(written, model, dense, tables)
    check = Check(
        runtime=f"coremltools {version('coremltools')}",
        error=error,
        tolerance=WEIGHT_TOLERANCES[tables],
        compared="weights",
    )
    facts = (
        ("target", "iOS18"),
        ("palettes", len(set(forms.palettes) - set(forms.dense))),
        ("int8_tables", forms.int8_tables),
        ("two_layers", len(forms.factors)),
        ("logit_error", logits.error),
    )
    return Written(check, facts, told(forms.dense, dense.state_dict()))


def _compare_logits(
    written: Mapping[str, NDArray[np.float32]], model: nn.Module, dense: nn.Module, tables: Tables
) -> Check:
    """Compare logits of the network with the constants that were written, and all else in float32.

    Raises:
        VqzooError: rounding changes the constants too much.
    """
    for key, tensor in model.state_dict().items():
        values = written.get(saved_name(key))
        if values is not None and values.shape == tensor.shape:
            tensor.copy_(torch.from_numpy(values))
    run = torch.no_grad()(model)
    what = f"{FOLDER} with rounded constants"
    return compare(run, dense, "torch", what, LOGIT_TOLERANCES[tables])


def _largest_error(
    written: Mapping[str, NDArray[np.float32]], model: nn.Module, keys: set[str], tables: Tables
) -> float:
    """The largest error of a weight, relative to its layer's largest.

    Raises:
        VqzooError: it is beyond the tolerance, or a weight is not in the package.
    """
    state = model.state_dict()
    largest = 0.0
    for key in sorted(keys):
        expected, values = state[key].numpy(), written.get(saved_name(key))
        if values is None or values.shape != expected.shape:
            raise VqzooError(f"{FOLDER} does not hold the weight {key}")
        peak = max(float(np.abs(expected).max()), torch.finfo(torch.float32).tiny)
        error = float(np.abs(values - expected).max()) / peak
        if not error <= WEIGHT_TOLERANCES[tables]:
            raise VqzooError(f"{FOLDER}: {key} differs by {error:.1e} of its largest weight")
        largest = max(largest, error)
    return largest

"""`vqzoo import --from coreml`: packages of networks that Apple's coreai-opt palettized."""

import copy
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

import vqzoo
from tests.importers.layouts import ARCHITECTURE, network_state
from vqzoo.network.import_file import import_file

ct = pytest.importorskip("coremltools")
pytest.importorskip("coreai_opt")
from coreai_opt.common import ExportBackend  # noqa: E402 - it may be missing
from coreai_opt.palettization import (  # noqa: E402
    KMeansPalettizer,
    KMeansPalettizerConfig,
    ModuleKMeansPalettizerConfig,
    PalettizationSpec,
)
from coreai_opt.palettization.config import OpKMeansPalettizerConfig  # noqa: E402
from coreai_opt.palettization.spec import PerGroupedChannelGranularity  # noqa: E402
from coreai_opt.quantization.spec import QuantizationScheme, QuantizationSpec  # noqa: E402

from tests.importers import coreml_packages  # noqa: E402

_INT8 = QuantizationSpec(dtype=torch.int8, qscheme=QuantizationScheme.SYMMETRIC)
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "groups": ({"n_bits": 3, "group": 16}, "FLOAT16"),
    "vectors": ({"n_bits": 4, "cluster_dim": 2}, "FLOAT16"),
    "scales": ({"n_bits": 4, "enable_per_channel_scale": True}, "FLOAT32"),
    "int8 tables": ({"n_bits": 4, "lut_qspec": _INT8}, "FLOAT16"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_weights_are_what_coremltools_decodes(name: str, tmp_path: Path) -> None:
    fields, precision = CASES[name]
    path = tmp_path / "palettes.mlpackage"
    _write(path, fields, getattr(ct.precision, precision))
    import_file(path, "coreml", ARCHITECTURE, tmp_path / "out")
    state = vqzoo.load(tmp_path / "out").state_dict()
    weights = [tensor.numpy() for tensor in state.values() if tensor.dim() > 1]
    for weight, expected in zip(weights, coreml_packages.decoded(path), strict=True):
        assert np.array_equal(weight, expected.astype(np.float32))
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert (tmp_path / "out/vqzoo.safetensors").stat().st_size < 1.15 * size


def _write(path: Path, fields: dict[str, Any], precision: Any) -> None:
    """Palettize the network as coreai-opt's documentation does, and convert it."""
    dense = timm.create_model(ARCHITECTURE).eval()
    dense.load_state_dict(network_state())
    example = torch.zeros(1, 3, 160, 160)
    layers = {
        name: _palettes(fields, len(layer.weight))
        for name, layer in dense.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }
    config = KMeansPalettizerConfig(global_config=_palettes(fields, 16), module_name_configs=layers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        palettizer = KMeansPalettizer(copy.deepcopy(dense), config)
        palettizer.prepare((example,))
        network = palettizer.finalize(backend=ExportBackend.CoreML).eval()
        package = ct.convert(
            torch.jit.trace(network, example),
            inputs=[ct.TensorType(shape=example.shape)],
            minimum_deployment_target=ct.target.iOS18,
            compute_precision=precision,
            skip_model_load=True,
        )
    package.save(str(path))


def _palettes(fields: dict[str, Any], channels: int) -> ModuleKMeansPalettizerConfig:
    fields = dict(fields)
    if group := fields.pop("group", None):
        size = math.gcd(channels, group)
        fields["granularity"] = PerGroupedChannelGranularity(axis=0, group_size=size)
    spec = PalettizationSpec(**fields)
    states = dict.fromkeys(OpKMeansPalettizerConfig.get_default_state_spec(), spec)
    return ModuleKMeansPalettizerConfig(
        op_input_spec=None,
        op_output_spec=None,
        op_state_spec=states,
        enable_fast_kmeans_mode=spec.cluster_dim == 1,
    )

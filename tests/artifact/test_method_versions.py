"""Methods that have changed their codes: files say which version each layer needs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from forging import take_apart
from torch import nn

import vqzoo
from vqzoo.compression.decode import decode
from vqzoo.errors import ArtifactError
from vqzoo.plugin.manager import installed_plugins

GOLDEN = Path(__file__).parents[1] / "golden" / "ecq-2"


def small_network() -> nn.Module:
    """Layers of every kind of kernel, and one without."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 5),
        nn.Conv2d(12, 12, 3, groups=12),
        nn.Flatten(2),
        nn.Conv1d(12, 8, 7),
        nn.AdaptiveAvgPool1d(4),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def test_artifacts_declare_transformed_codes_by_the_version_of_the_method(tmp_path: Path) -> None:
    small = vqzoo.compress(small_network(), "ecq", price=1e-3, transform="cosine", layers="all")
    vqzoo.save_weights(small, tmp_path / "a")
    forged = take_apart(tmp_path / "a")
    versions = {
        key: entry["code"]["method_version"] for key, entry in forged.metadata["layers"].items()
    }
    assert versions == {"0.weight": "2", "1.weight": "2", "3.weight": "2", "6.weight": "1"}
    network = vqzoo.load_into(small_network(), tmp_path / "a")
    for layer in small.layers:
        weight = network.get_submodule(layer.layer.name).weight.detach().flatten(1)
        assert torch.equal(weight, decode(layer.compressed, installed_plugins()))
    for key, version in (("0.weight", "1"), ("6.weight", "2"), ("0.weight", "3")):
        forged = take_apart(tmp_path / "a")
        forged.metadata["layers"][key]["code"]["method_version"] = version
        wrong = forged.seal(tmp_path / f"{key}-{version}")
        with pytest.raises(ArtifactError, match=rf"'{key}'.* version"):
            vqzoo.load_into(small_network(), wrong)


def test_a_golden_file_loads_to_the_same_weights() -> None:
    network = vqzoo.load_into(small_network(), GOLDEN)
    with np.load(GOLDEN / "decoded.npz") as expected:
        state = network.state_dict()
        assert set(expected) == {key for key in state if key.endswith("weight")}
        for key in expected:
            # Products of matrices, which a machine adds up in its own order.
            assert np.allclose(state[key], expected[key], rtol=1e-5, atol=1e-6), key

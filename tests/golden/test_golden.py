"""A file of every format version must always load, to the same weights."""

import hashlib
import json
from pathlib import Path

import pytest
from torch import Tensor

import vqzoo
from vqzoo.artifact.reader import open_artifact

FOLDERS = sorted(path.parent for path in Path(__file__).parent.glob("format-*/config.json"))
PRODUCTS = ("svd", "diba")  # their decoding adds up floats, in whatever order the machine does


def fingerprint(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


def test_there_are_golden_files() -> None:
    assert [folder.name for folder in FOLDERS] == ["format-1"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_golden_files_load_to_the_same_weights(folder: Path) -> None:
    layers = open_artifact(folder).metadata.layers
    methods = {key: layer.code.method for key, layer in layers.items()}
    expected = json.loads((folder / "decoded.json").read_text())
    state = vqzoo.load(folder).state_dict()
    assert state.keys() == expected.keys()
    assert len(set(methods.values())) >= 9
    for key, tensor in state.items():
        norm = float(tensor.double().norm())
        assert norm == pytest.approx(expected[key]["norm"], rel=1e-6), key
        if methods.get(key) not in PRODUCTS:
            assert fingerprint(tensor) == expected[key]["sha256"], key

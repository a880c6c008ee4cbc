"""`vqzoo import` of ResNet-50 and Mask R-CNN as kill-the-bits and permute-quantize-finetune publish
them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import vqzoo
from tests.importers.resnet50_files import (
    ARCHITECTURE,
    LARGE,
    MODEL_ARGS,
    SEMI_SUPERVISED,
    SMALL,
    Regime,
    kill_the_bits,
    mask_r_cnn,
    permute_quantize_finetune,
)
from vqzoo.artifact.reader import open_artifact
from vqzoo.errors import VqzooError
from vqzoo.network.import_file import import_file

REGIMES = {"small blocks": SMALL, "large blocks": LARGE, "semi-supervised": SEMI_SUPERVISED}
ALL_LAYERS = 21  # convolutions and the classifier
State = dict[str, Tensor]


def assert_imported(path: Path, kind: str, out: Path, regime: Regime, expected: State) -> None:
    made = import_file(path, kind, ARCHITECTURE, out, model_args=MODEL_ARGS)
    assert made.layers == ALL_LAYERS - len(regime.dense)
    assert {layer.code.method for layer in open_artifact(out).metadata.layers.values()} == {"pq"}
    state = vqzoo.load(out).state_dict()
    assert state.keys() == expected.keys()
    assert [key for key, tensor in expected.items() if not torch.equal(state[key], tensor)] == []
    assert made.file_bytes <= path.stat().st_size


@pytest.mark.parametrize("regime", REGIMES)
def test_kill_the_bits_is_decoded_bit_for_bit(tmp_path: Path, regime: str) -> None:
    path = tmp_path / "resnet50.pth"
    expected = kill_the_bits(path, REGIMES[regime])
    assert_imported(path, "kill-the-bits", tmp_path / "out", REGIMES[regime], expected)


@pytest.mark.parametrize("codebooks", [torch.float16, torch.float32], ids=["half", "single"])
@pytest.mark.parametrize("regime", ["small blocks", "large blocks"])
def test_permute_quantize_finetune_is_decoded_bit_for_bit(
    tmp_path: Path, regime: str, codebooks: torch.dtype
) -> None:
    path = tmp_path / "resnet50.pth"
    expected = permute_quantize_finetune(path, REGIMES[regime], codebooks)
    kind = "permute-quantize-finetune"
    assert_imported(path, kind, tmp_path / "out", REGIMES[regime], expected)


@pytest.mark.parametrize("flat", [False, True], ids=["kill-the-bits", "permute-quantize-finetune"])
def test_mask_r_cnn_is_refused_for_what_it_is(tmp_path: Path, flat: bool) -> None:
    path = tmp_path / "mask_r_cnn.pth"
    mask_r_cnn(path, flat=flat)
    kind = "permute-quantize-finetune" if flat else "kill-the-bits"
    with pytest.raises(VqzooError, match=r"mask_r_cnn\.pth is a detector of torchvision") as error:
        import_file(path, kind, ARCHITECTURE, tmp_path / "out", model_args=MODEL_ARGS)
    assert "\n" not in str(error.value)

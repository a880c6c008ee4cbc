"""Checkpoints as training scripts leave them load into the model, or are refused in one line."""

import argparse
import copy
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.utils import CheckpointSaver, ModelEmaV3
from torch import Tensor, nn

from vqzoo.errors import UsageError, VqzooError
from vqzoo.models.checkpoint import load_checkpoint

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    torch.manual_seed(11)
    return timm.create_model("test_resnet", num_classes=10).eval()


@pytest.fixture
def untrained() -> nn.Module:
    torch.manual_seed(12)
    return timm.create_model("test_resnet", num_classes=10).eval()


def assert_same_weights(model: nn.Module, other: nn.Module) -> None:
    for key, tensor in model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(tensor, other.state_dict()[key]), key


def test_a_plain_state_dict_loads_without_a_word(
    trained: nn.Module, untrained: nn.Module, tmp_path: Path
) -> None:
    for name, save in (("a.pth", torch.save), ("a.safetensors", save_file)):
        save(trained.state_dict(), tmp_path / name)
        assert load_checkpoint(untrained, tmp_path / name, "test_resnet") == []
        assert_same_weights(untrained, trained)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.", "net.", "my.student."]
)
def test_a_prefix_is_removed_and_named(
    prefix: str, trained: nn.Module, untrained: nn.Module, tmp_path: Path
) -> None:
    torch.save({prefix + k: v for k, v in trained.state_dict().items()}, tmp_path / "a.pth")
    (note,) = load_checkpoint(untrained, tmp_path / "a.pth", "test_resnet")
    assert repr(prefix) in note
    assert_same_weights(untrained, trained)


def test_a_lightning_checkpoint(trained: nn.Module, untrained: nn.Module, tmp_path: Path) -> None:
    state = {f"model.{key}": tensor for key, tensor in trained.state_dict().items()}
    state["criterion.class_weights"] = torch.ones(10)
    extra = {"epoch": 3, "pytorch-lightning_version": "2.4.0", "hyper_parameters": {"lr": 0.1}}
    torch.save({"state_dict": state, **extra}, tmp_path / "last.ckpt")
    notes = load_checkpoint(untrained, tmp_path / "last.ckpt", "test_resnet")
    assert ["'state_dict'" in notes[0], "'model.'" in notes[1]] == [True, True]
    assert_same_weights(untrained, trained)


def test_timms_checkpoint_saver_and_its_averaged_weights(
    trained: nn.Module, untrained: nn.Module, tmp_path: Path
) -> None:
    raw = copy.deepcopy(untrained)
    average = ModelEmaV3(trained)
    optimizer = torch.optim.SGD(raw.parameters(), lr=0.1)
    args = argparse.Namespace(model="test_resnet", lr=0.1)
    saver = CheckpointSaver(raw, optimizer, args, average, checkpoint_dir=str(tmp_path))
    saver.save_checkpoint(0)
    notes = load_checkpoint(untrained, tmp_path / "last.pth.tar", "test_resnet")
    assert "averaged" in notes[0]
    assert_same_weights(untrained, trained)


def test_averaged_weights_under_a_prefix_win_over_the_raw_ones(
    trained: nn.Module, untrained: nn.Module, tmp_path: Path
) -> None:
    raw = {f"model.{key}": tensor for key, tensor in untrained.state_dict().items()}
    average = {f"ema_model.module.{key}": t for key, t in trained.state_dict().items()}
    torch.save({"state_dict": raw | average}, tmp_path / "a.ckpt")
    notes = load_checkpoint(untrained, tmp_path / "a.ckpt", "test_resnet")
    assert any("'model'" in note and "averaged" in note for note in notes)
    assert_same_weights(untrained, trained)


def test_a_checkpoint_as_deit_publishes_it(tmp_path: Path) -> None:
    torch.manual_seed(1)
    trained, model = (timm.create_model("test_vit", num_classes=7) for _ in range(2))
    saved = {"model": trained.state_dict(), "args": argparse.Namespace(lr=1e-3), "epoch": 299}
    torch.save(saved, tmp_path / "deit.pth")
    assert load_checkpoint(model, tmp_path / "deit.pth", "test_vit")
    assert_same_weights(model, trained)


def official_swin(state: State) -> State:
    """The keys of Microsoft's checkpoints: a stage ends with its downsampling, the head is bare."""

    def rename(key: str) -> str:
        key = key.replace("head.fc.", "head.")
        return re.sub(
            r"layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", key
        )

    renamed = {rename(key): tensor for key, tensor in state.items()}
    for key in [key for key in renamed if key.endswith("relative_position_bias_table")]:
        index = key.replace("relative_position_bias_table", "relative_position_index")
        renamed[index] = torch.zeros(49, 49, dtype=torch.int64)
    renamed["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    return renamed


def test_an_official_swin_file_goes_through_timms_filter(tmp_path: Path) -> None:
    torch.manual_seed(2)
    name = "swin_tiny_patch4_window7_224"
    trained, model = (timm.create_model(name, num_classes=5).eval() for _ in range(2))
    torch.save({"model": official_swin(trained.state_dict())}, tmp_path / "swin.pth")
    notes = load_checkpoint(model, tmp_path / "swin.pth", name)
    assert any("layout" in note for note in notes)
    assert_same_weights(model, trained)


def test_what_only_training_needs_is_ignored_and_counted(
    trained: nn.Module, untrained: nn.Module, tmp_path: Path
) -> None:
    state = {k: v for k, v in trained.state_dict().items() if not k.endswith("batches_tracked")}
    state |= {"total_ops": torch.zeros(1), "conv1.total_params": torch.zeros(1)}
    state |= {"aux_head.0.weight": torch.zeros(3, 3), "AuxLogits.fc.bias": torch.zeros(3)}
    torch.save(state, tmp_path / "a.pth")
    notes = load_checkpoint(untrained, tmp_path / "a.pth", "test_resnet")
    assert [note.split()[0] for note in notes] == ["2", "2"]
    assert_same_weights(untrained, trained)


def test_a_head_for_other_classes_is_refused_by_name(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "imagenet.pth")
    model = timm.create_model("test_resnet", num_classes=10)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(VqzooError, match=r"head fc\.weight is for 1000 .*num_classes=1000"):
        load_checkpoint(model, tmp_path / "imagenet.pth", "test_resnet")
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def test_a_weight_that_would_stay_unset_is_named_with_its_close_match(
    trained: nn.Module, untrained: nn.Module, tmp_path: Path
) -> None:
    state = dict(trained.state_dict())
    state["layer1.0.conv1.kernel"] = state.pop("layer1.0.conv1.weight")
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(VqzooError, match=r"layer1\.0\.conv1\.weight .*layer1\.0\.conv1\.kernel"):
        load_checkpoint(untrained, tmp_path / "a.pth", "test_resnet")


def test_unknown_keys_are_refused_since_they_may_change_the_function(
    trained: nn.Module, untrained: nn.Module, tmp_path: Path
) -> None:
    torch.save({**trained.state_dict(), "layer1.0.gamma": torch.ones(1)}, tmp_path / "a.pth")
    with pytest.raises(VqzooError, match=r"1 keys are unknown \(layer1\.0\.gamma"):
        load_checkpoint(untrained, tmp_path / "a.pth", "test_resnet")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1, 2], "holds a list"),
        ({"epoch": 3}, "no tensors"),
        ({"state_dict": SimpleNamespace(lr=1)}, "types.SimpleNamespace object.*state_dict"),
    ],
)
def test_what_is_no_state_dict_is_refused(
    content: object, reason: str, untrained: nn.Module, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(VqzooError, match=reason):
        load_checkpoint(untrained, tmp_path / "a.pth", "test_resnet")


def test_a_file_that_is_missing_or_no_checkpoint(untrained: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        load_checkpoint(untrained, tmp_path / "none.pth", "test_resnet")
    for name in ("a.pth", "a.safetensors"):
        (tmp_path / name).write_bytes(b"not a checkpoint")
        with pytest.raises(VqzooError, match="cannot be read"):
            load_checkpoint(untrained, tmp_path / name, "test_resnet")

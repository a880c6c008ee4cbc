"""Wrapped networks are compressed, evaluated and fine-tuned as the networks inside."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
import timm
import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim.swa_utils import AveragedModel

import vqzoo
from vqzoo.errors import UsageError
from vqzoo.wrappers import as_network, without_wrappers


@pytest.fixture(scope="module")
def mini() -> nn.Module:
    vqzoo.register_models()
    return timm.create_model("alexnet_mini.fmnist", pretrained=True).eval()


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """A group of this process alone."""
    store = f"file://{tmp_path / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DataParallel": nn.DataParallel,
    "torch.compile": torch.compile,
    "compiled and parallel": lambda network: torch.compile(nn.DataParallel(network)),
    "parallel and compiled": lambda network: nn.DataParallel(torch.compile(network)),
    "averaged": AveragedModel,
    "timm's average": timm.utils.ModelEmaV3,
    "DistributedDataParallel": nn.parallel.DistributedDataParallel,
}


@pytest.mark.parametrize("kind", WRAPPERS)
def test_wrapped_networks(mini: nn.Module, kind: str, process_group: None, tmp_path: Path) -> None:
    wrapped = WRAPPERS[kind](copy.deepcopy(mini))
    assert type(as_network(wrapped)) is type(mini)
    plain = vqzoo.evaluate(mini, images=50)
    assert torch.equal(vqzoo.evaluate(wrapped, images=50).correct, plain.correct)
    expected = vqzoo.compress(mini, "rtn", layers="all")
    small = vqzoo.compress(wrapped, "rtn", layers="all")
    assert [layer.layer.name for layer in small.layers] == [
        layer.layer.name for layer in expected.layers
    ]
    small.save(tmp_path / "artifact")
    loaded = vqzoo.load(tmp_path / "artifact").state_dict()
    assert loaded.keys() == mini.state_dict().keys()
    for key, tensor in expected.module.state_dict().items():
        assert torch.equal(loaded[key], tensor), key


def test_parts_that_are_wrapped(mini: nn.Module, tmp_path: Path) -> None:
    network = timm.create_model("test_resnet", num_classes=7).eval()
    expected = vqzoo.compress(network, "rtn", layers="all")
    wrapped = copy.deepcopy(network)
    wrapped.layer1 = torch.compile(wrapped.layer1)
    wrapped.layer2 = nn.DataParallel(nn.Sequential(torch.compile(wrapped.layer2[0])))
    wrapped.layer3[0].conv1 = nn.DataParallel(wrapped.layer3[0].conv1)
    keys = list(wrapped.state_dict())
    inner = without_wrappers(wrapped)
    assert list(inner.state_dict()) == list(network.state_dict())
    pointers = {tensor.data_ptr() for tensor in wrapped.state_dict().values()}
    assert {tensor.data_ptr() for tensor in inner.state_dict().values()} == pointers
    small = vqzoo.compress(wrapped, "rtn", layers="all")
    assert list(wrapped.state_dict()) == keys
    small.save(tmp_path / "artifact")
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(vqzoo.load(tmp_path / "artifact")(x), expected(x))


@pytest.mark.parametrize("mode", ["decoded", "codes"])
@pytest.mark.parametrize("kind", ["torch.compile", "DataParallel", "a part"])
def test_weights_are_loaded_into_wrapped_networks(
    kind: str, mode: Literal["decoded", "codes"], tmp_path: Path
) -> None:
    small = vqzoo.compress(timm.create_model("test_resnet", num_classes=4), "km", k=8)
    vqzoo.save_weights(small, tmp_path / "weights")
    network = timm.create_model("test_resnet", num_classes=4)
    if kind == "a part":
        network.layer1 = nn.DataParallel(network.layer1)
        wrapped = network
    else:
        wrapped = WRAPPERS[kind](network)
    loaded = vqzoo.load_into(wrapped, tmp_path / "weights", mode=mode)
    assert (loaded is wrapped) == (mode == "decoded")
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        difference = (as_network(loaded)(x) - small(x)).abs().max()
        assert difference <= 1e-4 * small(x).abs().max()
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_wrapped_teacher(mini: nn.Module) -> None:
    small = vqzoo.compress(mini, "pq", layers="classifier.1", k=4, d=8)
    batches = [torch.randn(8, 1, 28, 28)]
    tuned = [
        vqzoo.finetune(small, batches, teacher=teacher, epochs=1)
        for teacher in (mini, nn.DataParallel(mini))
    ]
    states = [model.state_dict() for model in tuned]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.filterwarnings("ignore")  # of FSDP's deprecation
def test_sharded_networks_are_refused(process_group: None) -> None:
    network = timm.create_model("test_resnet")
    sharded = FullyShardedDataParallel(network, device_id=torch.device("cpu"))
    for use in (lambda: vqzoo.compress(sharded, "rtn"), lambda: vqzoo.evaluate(sharded)):
        with pytest.raises(UsageError, match="FullyShardedDataParallel are sharded"):
            use()


def test_what_is_no_network_is_refused(mini: nn.Module) -> None:
    for thing in ("alexnet", mini.state_dict(), None):
        for use in (
            lambda model: vqzoo.compress(model, "pq"),
            lambda model: vqzoo.evaluate(model, images=1),
        ):
            with pytest.raises(UsageError, match="is not a network") as caught:
                use(thing)
            assert len(str(caught.value)) < 300


def test_a_compressed_network_has_what_timm_looks_for(mini: nn.Module) -> None:
    for name in ("test_resnet", "test_vit"):
        network = timm.create_model(name, num_classes=5, in_chans=1).eval()
        small = vqzoo.compress(network, "rtn", layers="all")
        for attribute in ("pretrained_cfg", "default_cfg", "num_classes", "num_features",
                          "head_hidden_size", "in_chans", "feature_info"):  # fmt: skip
            assert getattr(small, attribute) == getattr(network, attribute), attribute
        assert timm.data.resolve_model_data_config(small) == timm.data.resolve_model_data_config(
            network
        )
        x = torch.randn(2, 1, 160, 160)
        with torch.inference_mode():
            features = small.forward_features(x)
            assert torch.equal(small.forward_head(features), small(x))
        assert isinstance(small.get_classifier(), nn.Linear)
        with pytest.raises(AttributeError, match="no_such_thing"):
            _ = small.no_such_thing
        small.reset_classifier(3)
        assert (small.num_classes, small(x).shape) == (3, (2, 3))
        assert network.num_classes == 5


def test_copies_of_a_compressed_network(mini: nn.Module) -> None:
    small = vqzoo.compress(mini, "km", layers="classifier.1", k=4)
    buffer = io.BytesIO()
    torch.save(small, buffer)
    buffer.seek(0)
    x = torch.randn(3, 1, 28, 28)
    for again in (
        copy.deepcopy(small),
        copy.copy(small),
        pickle.loads(pickle.dumps(small)),
        torch.load(buffer, weights_only=False),
    ):
        assert type(again) is vqzoo.CompressedModel
        assert again.pretrained_cfg == mini.pretrained_cfg
        assert torch.equal(again(x), small(x))


class Copied(nn.Linear):
    """A network with a way of its own to be copied."""

    def __deepcopy__(self, memo: dict[int, object]) -> Copied:
        other = Copied(self.in_features, self.out_features)
        other.load_state_dict(self.state_dict())
        return other


def test_special_methods_stay_those_of_the_wrapper() -> None:
    small = vqzoo.compress(Copied(8, 4), "rtn", layers="all")
    again = copy.deepcopy(small)
    assert type(again) is vqzoo.CompressedModel
    assert torch.equal(again.module.weight, small.module.weight)


def test_preprocessing_is_that_of_the_original(mini: nn.Module) -> None:
    small = vqzoo.compress(mini, "km", layers="all", k=16)
    again = vqzoo.evaluate(small, images=100)
    inside = vqzoo.evaluate(small.module, images=100)
    assert torch.equal(again.correct, inside.correct)
    assert again.top1 > 85

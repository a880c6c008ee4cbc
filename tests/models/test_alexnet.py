"""Both AlexNets follow timm's conventions, and the large one equals torchvision's."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from vqzoo.models.architectures import alexnet, alexnet_mini  # noqa: F401
from vqzoo.models.embedded import weights_file

torchvision_models = pytest.importorskip("torchvision.models")


@pytest.fixture(scope="module")
def big() -> nn.Module:
    return timm.create_model("alexnet.tv_in1k").eval()


@pytest.fixture
def mini() -> nn.Module:
    return timm.create_model("alexnet_mini").eval()


def test_alexnet_is_torchvisions_bit_for_bit(big: nn.Module) -> None:
    reference = torchvision_models.alexnet().eval()
    reference.load_state_dict(big.state_dict())
    images = torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(big(images), reference(images))
    assert sum(p.numel() for p in big.parameters()) == 61_100_840
    assert repr(big.features) == repr(reference.features)
    assert repr(big.classifier) == repr(reference.classifier)


def test_alexnet_preprocesses_and_downloads_as_torchvision_does(big: nn.Module) -> None:
    weights = torchvision_models.AlexNet_Weights.IMAGENET1K_V1
    preset = weights.transforms()
    config = timm.data.resolve_model_data_config(big)
    assert big.pretrained_cfg["url"] == weights.url
    assert config["input_size"] == (3, *preset.crop_size * 2)
    assert (list(config["mean"]), list(config["std"])) == (preset.mean, preset.std)
    assert config["interpolation"] == preset.interpolation.value
    assert 224 / config["crop_pct"] == preset.resize_size[0]


def test_an_alexnet_that_timm_has_is_not_replaced() -> None:
    assert timm.models.is_model("alexnet")
    registered = timm.models.model_entrypoint("alexnet")
    source = alexnet.__loader__.get_source(alexnet.__name__)
    exec(compile(source, alexnet.__file__, "exec"), {"__name__": alexnet.__name__})
    assert timm.models.model_entrypoint("alexnet") is registered


def test_mini_is_an_alexnet_of_about_seven_million_weights(mini: nn.Module) -> None:
    convs = [m for m in mini.features if isinstance(m, nn.Conv2d)]
    dense = [m for m in mini.classifier if isinstance(m, nn.Linear)]
    total = sum(p.numel() for p in mini.parameters())
    assert (len(convs), len(dense)) == (5, 3)
    assert 5_000_000 <= total <= 8_000_000
    assert sum(p.numel() for m in dense for p in m.parameters()) >= 0.94 * total


def test_mini_loads_its_packaged_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("went to the network"))
    model = timm.create_model("alexnet_mini.fmnist", pretrained=True)
    stored = safetensors.load_file(weights_file("alexnet_mini.fmnist"))
    state = model.state_dict()
    assert stored.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(tensor, stored[name].to(tensor.dtype))
    for name, parameter in model.named_parameters():
        assert (stored[name].dtype, parameter.dtype) == (torch.float16, torch.float32)


@pytest.mark.parametrize("size", [1, 28, 33])
def test_head_and_features_compose_to_forward(mini: nn.Module, size: int) -> None:
    images = torch.randn(2, 1, 28 + size, 28, generator=torch.Generator().manual_seed(size))
    with torch.inference_mode():
        features = mini.forward_features(images)
        hidden = mini.forward_head(features, pre_logits=True)
        assert features.shape[1] == mini.num_features
        assert hidden.shape == (2, mini.head_hidden_size)
        assert torch.equal(mini.get_classifier()(hidden), mini(images))


def test_timms_keywords_are_supported(mini: nn.Module) -> None:
    model = timm.create_model("alexnet_mini", num_classes=7, in_chans=3, drop_rate=0.25)
    assert model(torch.zeros(2, 3, 28, 28)).shape == (2, 7)
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.25, 0.25]
    model.reset_classifier(3)
    assert (model.num_classes, model(torch.zeros(2, 3, 28, 28)).shape) == (3, (2, 3))
    model.reset_classifier(0)
    assert model(torch.zeros(2, 3, 28, 28)).shape == (2, model.head_hidden_size)
    assert mini.get_classifier() is mini.get_submodule(mini.pretrained_cfg["classifier"])
    assert isinstance(mini.get_submodule(mini.pretrained_cfg["first_conv"]), nn.Conv2d)
    with pytest.raises(ValueError, match="max"):
        model.reset_classifier(3, "max")


def test_pretrained_weights_fit_another_head_and_another_input() -> None:
    model = timm.create_model("alexnet_mini.fmnist", pretrained=True, num_classes=4, in_chans=3)
    assert model(torch.zeros(1, 3, 28, 28)).shape == (1, 4)


def test_feature_maps_have_the_announced_shapes() -> None:
    model = timm.create_model("alexnet_mini", features_only=True)
    maps = model(torch.zeros(1, 1, 28, 28))
    assert [m.shape[1] for m in maps] == model.feature_info.channels()
    assert [m.shape[-1] for m in maps] == [14, 7, 3]


def test_builds_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = timm.create_model("alexnet")
    assert {p.device.type for p in model.parameters()} == {"meta"}

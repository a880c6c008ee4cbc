"""SqueezeNet follows timm's conventions, and equals torchvision's."""

from __future__ import annotations

import pytest
import timm
import torch

from vqzoo.models.architectures import squeezenet  # noqa: F401

torchvision_models = pytest.importorskip("torchvision.models")


def test_squeezenet_is_torchvisions() -> None:
    ours = timm.create_model("squeezenet1_0.tv_in1k").eval()
    reference = torchvision_models.squeezenet1_0().eval()
    assert list(ours.state_dict()) == list(reference.state_dict())
    reference.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.allclose(ours(images), reference(images), atol=1e-6)
    assert sum(p.numel() for p in ours.parameters()) == 1_248_424


def test_it_preprocesses_and_downloads_as_torchvision_does() -> None:
    weights = torchvision_models.SqueezeNet1_0_Weights.IMAGENET1K_V1
    preset = weights.transforms()
    model = timm.create_model("squeezenet1_0.tv_in1k")
    config = timm.data.resolve_model_data_config(model)
    assert model.pretrained_cfg["url"] == weights.url
    assert config["input_size"] == (3, *preset.crop_size * 2)
    assert (list(config["mean"]), list(config["std"])) == (preset.mean, preset.std)
    assert config["interpolation"] == preset.interpolation.value
    assert 224 / config["crop_pct"] == preset.resize_size[0]


def test_caffes_adds_zeros_before_its_last_convolution() -> None:
    caffe = timm.create_model("squeezenet1_0_caffe", num_classes=5).eval()
    plain = timm.create_model("squeezenet1_0", num_classes=5).eval()
    plain.load_state_dict(caffe.state_dict())
    images = torch.randn(2, 3, 227, 227, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        features = caffe.forward_features(images)
        assert torch.equal(features, plain.forward_features(images))
        grid = plain.classifier[:3](features)
        border = caffe.classifier[1].bias.relu()
        assert features.shape[2:] == (13, 13)
        expected = (grid.sum((2, 3)) + border * (15 * 15 - 13 * 13)) / 15**2
        assert torch.allclose(caffe(images), expected, atol=1e-5)


def test_timms_keywords_are_supported() -> None:
    model = timm.create_model("squeezenet1_0", num_classes=7, in_chans=1, drop_rate=0.25)
    images = torch.zeros(2, 1, 64, 64)
    assert model(images).shape == (2, 7)
    assert model.forward_head(model.forward_features(images), pre_logits=True).shape == (2, 512)
    model.reset_classifier(3)
    assert (model.num_classes, model(images).shape) == (3, (2, 3))
    model.reset_classifier(0)
    assert model(images).shape == (2, 512)
    with pytest.raises(ValueError, match="max"):
        model.reset_classifier(3, "max")


def test_feature_maps_have_the_announced_shapes() -> None:
    model = timm.create_model("squeezenet1_0", features_only=True)
    maps = model(torch.zeros(1, 3, 224, 224))
    assert [m.shape[1] for m in maps] == model.feature_info.channels()
    assert [m.shape[-1] for m in maps] == [109, 54, 27, 13]

"""Channels, size and normalization of the images are those of the network as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from torch import nn

import vqzoo
from vqzoo.data.evaluation_data import open_data
from vqzoo.data.model_input import input_of, input_size
from vqzoo.errors import UsageError


def replaced(name: str, layer: nn.Module) -> nn.Module:
    """A network whose first layer the user has replaced."""
    model = timm.create_model("test_resnet", num_classes=2)
    model.set_submodule(name, layer)
    return model


def resized(name: str, size: int, **arguments: object) -> nn.Module:
    """A network that got another input size after it was created."""
    model = timm.create_model(name, num_classes=2, **arguments)
    model.set_input_size(img_size=size)
    return model


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "as configured": (lambda: timm.create_model("test_resnet", num_classes=2), (3, 160, 160)),
    "in_chans": (
        lambda: timm.create_model("test_resnet", num_classes=2, in_chans=1),
        (1, 160, 160),
    ),
    "in_chans of a ViT": (
        lambda: timm.create_model("test_vit", num_classes=2, in_chans=1, img_size=64),
        (1, 64, 64),
    ),
    "img_size": (
        lambda: timm.create_model(
            "vit_tiny_patch16_224", num_classes=2, img_size=96, depth=1, dynamic_img_size=False
        ),
        (3, 96, 96),
    ),
    "img_size, not square": (
        lambda: timm.create_model("test_vit", num_classes=2, img_size=(64, 96)),
        (3, 64, 96),
    ),
    "dynamic_img_size": (
        lambda: timm.create_model("test_vit2", num_classes=2, img_size=96, dynamic_img_size=True),
        (3, 96, 96),
    ),
    "set_input_size": (lambda: resized("test_vit", 80), (3, 80, 80)),
    "set_input_size of Swin": (
        lambda: resized(
            "swin_tiny_patch4_window7_224", 128, depths=(1, 1, 1, 1), embed_dim=24, window_size=4
        ),
        (3, 128, 128),
    ),
    "LeViT, which keeps no img_size": (
        lambda: timm.create_model("levit_128s", num_classes=2, img_size=64),
        (3, 64, 64),
    ),
    "first layer replaced": (
        lambda: replaced("conv1.0", nn.Conv2d(1, 16, 3, stride=2, padding=1)),
        (1, 160, 160),
    ),
    "pixels rearranged before the first layer": (
        lambda: timm.create_model("tresnet_m", num_classes=2, in_chans=1),
        (1, 224, 224),
    ),
    "torchvision's": (
        lambda: torchvision.models.VisionTransformer(64, 16, 1, 2, 32, 64, num_classes=2),
        (3, 64, 64),
    ),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_network_says_what_it_takes(kind: str) -> None:
    create, expected = NETWORKS[kind]
    network = create().eval()
    assert input_size(network) == expected
    config = input_of(network).config
    assert config["input_size"] == expected
    assert len(config["mean"]) == len(config["std"]) == expected[0]
    with torch.inference_mode():
        assert network(torch.zeros(1, *expected)).shape == (1, 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 256, (50, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / label / f"{i}.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize(
    "kind", ["in_chans", "in_chans of a ViT", "img_size, not square", "first layer replaced"]
)
def test_networks_are_evaluated_as_they_are(folder: Path, kind: str) -> None:
    create, (channels, height, width) = NETWORKS[kind]
    network = create()
    images = next(iter(open_data(f"imagefolder:{folder}", network))).images
    assert images.shape == (6, channels, height, width)
    assert vqzoo.evaluate(network, f"imagefolder:{folder}").images == 6
    small = vqzoo.compress(
        network, "km", layers="all", k=2, ratio=None, calibrate=f"imagefolder:{folder}"
    )
    assert vqzoo.evaluate(small, f"imagefolder:{folder}").images == 6


def test_networks_that_do_not_say_their_classes_are_asked(folder: Path) -> None:
    network = torchvision.models.squeezenet1_1(num_classes=2)
    del network.num_classes
    result = vqzoo.evaluate(network, f"imagefolder:{folder}")
    assert (result.images, result.labels.partition(":")[0]) == (6, "class folders in natural order")
    with pytest.raises(UsageError, match="2 class folders, but the model has 3 classes"):
        vqzoo.evaluate(torchvision.models.resnet18(num_classes=3), f"imagefolder:{folder}")
    with pytest.raises(UsageError, match="fmnist has 10 classes, the model 3"):
        vqzoo.evaluate(nn.DataParallel(torchvision.models.resnet18(num_classes=3)), "fmnist")


def test_grey_images_are_normalized_by_the_mean_of_the_channels(folder: Path) -> None:
    network = timm.create_model("resnet18", num_classes=2, in_chans=1)
    config = timm.data.resolve_model_data_config(network)
    mean, std = np.mean(config["mean"]), np.mean(config["std"])
    assert input_of(network).config["mean"] == pytest.approx((mean,))
    Image.new("L", (300, 300), 77).save(folder / "a" / "0.png")
    first = next(iter(open_data(f"imagefolder:{folder}", network))).images[0]
    np.testing.assert_allclose(first.numpy(), (77 / 255 - mean) / std, rtol=1e-5)


@pytest.mark.parametrize("channels", [2, 4, 6])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "tresnet_m"])
def test_other_numbers_of_channels_are_refused(name: str, channels: int) -> None:
    network = timm.create_model(name, in_chans=channels, num_classes=10)
    with pytest.raises(UsageError, match=f"takes images of {channels} channels"):
        open_data("fmnist", network)

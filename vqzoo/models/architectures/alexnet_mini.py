"""A small AlexNet for 28x28 gray images, with weights trained on Fashion-MNIST.

Importing this module registers `alexnet_mini.fmnist` with timm. Its weights are package data, so
that `timm.create_model("alexnet_mini.fmnist", pretrained=True)` downloads nothing.
"""

from __future__ import annotations

from typing import Any

from timm.models import generate_default_cfgs, register_model

from vqzoo.models.architectures.alexnet import AlexNet, AlexNetSpec, ConvSpec, create_alexnet
from vqzoo.models.embedded import fmnist_config

# AlexNet's five convolutions and three dense layers, with kernels and widths for 28x28 images. The
# feature maps are 28, 14, 7 and 3 pixels wide; the dense layers hold 94% of the weights (in AlexNet
# 96%). Batch norm takes the place of AlexNet's response normalization.
ALEXNET_MINI = AlexNetSpec(
    convs=(
        ConvSpec(32, kernel_size=5, padding=2, pool=True),
        ConvSpec(64, kernel_size=5, padding=2, pool=True),
        ConvSpec(128, kernel_size=3, padding=1),
        ConvSpec(112, kernel_size=3, padding=1),
        ConvSpec(112, kernel_size=3, padding=1, pool=True),
    ),
    grid=3,
    hidden=2048,
    pool_ceil=True,
    norm=True,
)

default_cfgs = generate_default_cfgs(
    {
        "alexnet_mini.fmnist": fmnist_config(
            "alexnet_mini.fmnist",
            pool_size=(3, 3),
            first_conv="features.0",
            classifier="classifier.6",
            description="AlexNet for 28x28 grey images, trained on Fashion-MNIST",
        )
    }
)


@register_model
def alexnet_mini(pretrained: bool = False, **kwargs: Any) -> AlexNet:
    """AlexNet's layout for 1x28x28 images and 10 classes, with about 6.7 million parameters."""
    return create_alexnet("alexnet_mini", ALEXNET_MINI, pretrained, **kwargs)

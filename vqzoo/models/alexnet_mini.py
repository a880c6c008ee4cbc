"""A small AlexNet for 28x28 gray images, with weights trained on Fashion-MNIST.

Importing this module registers `alexnet_mini.fmnist` with timm. Its weights are package data, so
that `timm.create_model("alexnet_mini.fmnist", pretrained=True)` downloads nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timm.models import generate_default_cfgs, register_model

from vqzoo.models.alexnet import AlexNet, AlexNetSpec, ConvSpec, create_alexnet

WEIGHTS = Path(__file__).parent / "assets" / "alexnet_mini.fmnist.safetensors"

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

# Pixel mean and standard deviation of the 60,000 training images, on a scale of 0 to 1.
FMNIST_MEAN = (0.2860,)
FMNIST_STD = (0.3530,)
FMNIST_LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

default_cfgs = generate_default_cfgs(
    {
        "alexnet_mini.fmnist": {
            "file": str(WEIGHTS),
            "num_classes": 10,
            "input_size": (1, 28, 28),
            "pool_size": (3, 3),
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "mean": FMNIST_MEAN,
            "std": FMNIST_STD,
            "first_conv": "features.0",
            "classifier": "classifier.6",
            "label_names": FMNIST_LABELS,
            "license": "apache-2.0",
            "description": "AlexNet for 28x28 grey images, trained on Fashion-MNIST",
        }
    }
)


@register_model
def alexnet_mini(pretrained: bool = False, **kwargs: Any) -> AlexNet:
    """AlexNet's layout for 1x28x28 images and 10 classes, with about 6.7 million parameters."""
    return create_alexnet("alexnet_mini", ALEXNET_MINI, pretrained, **kwargs)

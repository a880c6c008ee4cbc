"""A small vision transformer for 28x28 grey images, with weights trained on Fashion-MNIST.

Importing this module registers `vit_mini.fmnist` with timm. Its weights are package data, so that
`timm.create_model("vit_mini.fmnist", pretrained=True)` downloads nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from timm.layers import HybridEmbed
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from vqzoo.models.embedded import fmnist_config

WIDTH = 64
DEPTH = 5
HEADS = 4

default_cfgs = generate_default_cfgs(
    {
        "vit_mini.fmnist": fmnist_config(
            "vit_mini.fmnist",
            fixed_input_size=True,
            first_conv="patch_embed.backbone.conv1",
            classifier="head",
            description="Vision transformer for 28x28 grey images, trained on Fashion-MNIST",
        )
    }
)


class ConvStem(nn.Sequential):
    """Two convolutions that take each 4x4 patch and its surroundings to a vector.

    Xiao et al. 2021 (arXiv 2106.14881): a transformer with such a stem is easier to train than with
    one convolution that cuts the image into patches.
    """

    def __init__(self, in_chans: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width // 2, width, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.act2 = nn.ReLU()


@register_model
def vit_mini(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """A transformer for 1x28x28 images, 49 tokens and 10 classes, with 280,000 parameters."""
    in_chans: int = kwargs.get("in_chans", 1)
    return build_model_with_cfg(
        VisionTransformer,
        "vit_mini",
        pretrained,
        embed_layer=partial(HybridEmbed, backbone=ConvStem(in_chans, WIDTH)),
        patch_size=1,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
        class_token=False,
        global_pool="avg",
        feature_cfg={"out_indices": kwargs.pop("out_indices", 3), "feature_cls": "getter"},
        **kwargs,
    )

"""A small MobileNet for 28x28 grey images, with weights trained on Fashion-MNIST.

Importing this module registers `mobilenet_mini.fmnist` with timm. Its weights are package data, so
that `timm.create_model("mobilenet_mini.fmnist", pretrained=True)` downloads nothing.
"""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from torch import nn

from vqzoo.models.embedded import fmnist_config

# Inverted residuals (Sandler et al. 2018, arXiv 1801.04381) with squeeze-and-excitation, as in
# EfficientNet (Tan, Le 2019, arXiv 1905.11946). The stem halves 28x28 pixels to 14x14, the last
# stage to 7x7.
STAGES = (
    ("ds_r1_k3_s1_c24",),
    ("ir_r3_k3_s1_e4_c40_se0.25",),
    ("ir_r3_k5_s2_e4_c80_se0.25",),
)
STEM_WIDTH = 24
HEAD_WIDTH = 320

default_cfgs = generate_default_cfgs(
    {
        "mobilenet_mini.fmnist": fmnist_config(
            "mobilenet_mini.fmnist",
            pool_size=(7, 7),
            first_conv="conv_stem",
            classifier="classifier",
            description="Inverted residuals for 28x28 grey images, trained on Fashion-MNIST",
        )
    }
)


@register_model
def mobilenet_mini(pretrained: bool = False, **kwargs: Any) -> EfficientNet:
    """Inverted residuals for 1x28x28 images and 10 classes, with about 250,000 parameters."""
    return build_model_with_cfg(
        EfficientNet,
        "mobilenet_mini",
        pretrained,
        block_args=decode_arch_def([list(stage) for stage in STAGES]),
        stem_size=STEM_WIDTH,
        fix_stem=True,
        num_features=HEAD_WIDTH,
        act_layer=nn.ReLU,
        feature_cfg={"out_indices": kwargs.pop("out_indices", (0, 1)), "feature_cls": "getter"},
        **kwargs,
    )

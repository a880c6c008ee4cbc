"""SqueezeNet for timm's registry, with torchvision's layout and key names and timm's conventions.

Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer, "SqueezeNet: AlexNet-level accuracy with 50x fewer
parameters and <0.5MB model size" (2016), arXiv 1602.07360. Importing this module registers
`squeezenet1_0.tv_in1k` and `squeezenet1_0_caffe` with timm, unless the installed timm has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from vqzoo.models.architectures.plain import PlainNetwork

_STEM = 96
# Outputs of the squeezing layer and of each expanding layer, and whether a max pool comes before.
_FIRES = (
    (16, 64, True),
    (16, 64, False),
    (32, 128, False),
    (32, 128, True),
    (48, 192, False),
    (48, 192, False),
    (64, 256, False),
    (64, 256, True),
)


class Fire(nn.Module):
    """A 1x1 convolution that squeezes channels, and a 1x1 and a 3x3 convolution that expand them
    side by side; a ReLU behind each."""

    def __init__(self, in_chans: int, squeezed: int, expanded: int, **factory: Any) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_chans, squeezed, 1, **factory)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1, **factory)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_chans, H, W) to (N, 2 * expanded, H, W)."""
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], 1).relu()


class SqueezeNet(PlainNetwork):
    """A convolution and eight Fire modules (`features`), and a 1x1 convolution (`classifier`).

    Args:
        head_padding: zeros around the feature maps that the last convolution takes.
        num_classes: outputs of the last convolution; 0 leaves it out.
        in_chans: channels of the input.
        drop_rate: dropout before the last convolution.
        global_pool: timm's keyword; only `"avg"` and `""` are supported.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Raises:
        ValueError: `global_pool` is not supported.
    """

    last = 1

    def __init__(
        self,
        head_padding: int = 0,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.5,
        global_pool: str = "avg",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(global_pool)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.in_chans = in_chans
        self.head_padding = head_padding
        self.feature_info: list[dict[str, Any]] = []

        layers: list[nn.Module] = [nn.Conv2d(in_chans, _STEM, 7, stride=2, **factory), nn.ReLU()]
        chans, reduction = _STEM, 2
        for squeezed, expanded, pooled in _FIRES:
            if pooled:
                self._mark(layers, chans, reduction)
                layers.append(nn.MaxPool2d(3, stride=2, ceil_mode=True))
                reduction *= 2
            layers.append(Fire(chans, squeezed, expanded, **factory))
            chans = 2 * expanded
        self._mark(layers, chans, reduction)
        self.features = nn.Sequential(*layers)
        self.num_features = self.head_hidden_size = chans
        self.num_classes = num_classes
        self.classifier = nn.Sequential(
            nn.Dropout(drop_rate), self._last_layer(**factory), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
        self._initialize_weights()

    def _mark(self, layers: Sequence[nn.Module], chans: int, reduction: int) -> None:
        """Make the output of the last layer one of timm's features."""
        place = {"num_chs": chans, "reduction": reduction, "module": f"features.{len(layers) - 1}"}
        self.feature_info.append(place)

    def _last_layer(self, **factory: Any) -> nn.Module:
        if self.num_classes <= 0:
            return nn.Identity()
        padding = self.head_padding
        return nn.Conv2d(self.num_features, self.num_classes, 1, padding=padding, **factory)

    def _initialize_weights(self) -> None:
        """Kaiming uniform for ReLU (He et al. 2015, eq. 10), zero biases, a small last layer."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if isinstance(self.classifier[1], nn.Conv2d):
            nn.init.normal_(self.classifier[1].weight, std=0.01)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map feature maps to logits (N, num_classes), or to their means (N, num_features)."""
        return x.mean((2, 3)) if pre_logits else self.classifier(x).flatten(1)


def _create(variant: str, head_padding: int, pretrained: bool, **kwargs: Any) -> SqueezeNet:
    out_indices: Sequence[int] = kwargs.pop("out_indices", (0, 1, 2, 3))
    return build_model_with_cfg(
        SqueezeNet,
        variant,
        pretrained,
        head_padding=head_padding,
        feature_cfg={"flatten_sequential": True, "out_indices": out_indices},
        **kwargs,
    )


_LAYERS = {"num_classes": 1000, "first_conv": "features.0", "classifier": "classifier.1"}

default_cfgs = generate_default_cfgs(
    {
        "squeezenet1_0.tv_in1k": _LAYERS
        | {
            "url": "https://download.pytorch.org/models/squeezenet1_0-b66bff10.pth",
            "input_size": (3, 224, 224),
            "pool_size": (13, 13),
            "crop_pct": 224 / 256,
            "interpolation": "bilinear",
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "license": "bsd-3-clause",
            "origin_url": "https://github.com/pytorch/vision",
            "paper_ids": "arXiv:1602.07360",
        },
        # Caffe's way with images: all of them become 256x256, and pixels from 0 to 255 lose their
        # mean.
        "squeezenet1_0_caffe.untrained": _LAYERS
        | {
            "input_size": (3, 227, 227),
            "pool_size": (13, 13),
            "crop_pct": 227 / 256,
            "crop_mode": "squash",
            "interpolation": "bilinear",
            "mean": (123 / 255, 117 / 255, 104 / 255),
            "std": (1 / 255, 1 / 255, 1 / 255),
            "paper_ids": "arXiv:1602.07360",
        },
    }
)

if not timm.models.is_model("squeezenet1_0"):

    @register_model
    def squeezenet1_0(pretrained: bool = False, **kwargs: Any) -> SqueezeNet:
        """SqueezeNet 1.0 as torchvision ships it, with 1,248,424 parameters for 1000 classes."""
        return _create("squeezenet1_0", 0, pretrained, **kwargs)


if not timm.models.is_model("squeezenet1_0_caffe"):

    @register_model
    def squeezenet1_0_caffe(pretrained: bool = False, **kwargs: Any) -> SqueezeNet:
        """SqueezeNet 1.0 as its authors published it for Caffe, with zeros around the feature maps
        that the last convolution takes."""
        return _create("squeezenet1_0_caffe", 1, pretrained, **kwargs)

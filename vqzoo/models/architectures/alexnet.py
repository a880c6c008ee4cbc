"""AlexNet for timm's registry, with torchvision's layout and key names and timm's conventions.

This is the single-tower AlexNet that torchvision ships: Krizhevsky, "One weird trick for
parallelizing convolutional neural networks" (2014), arXiv 1404.5997. Importing this module
registers `alexnet.tv_in1k` with timm, unless the installed timm has an AlexNet already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from vqzoo.models.architectures.plain import PlainNetwork


@dataclass(frozen=True)
class ConvSpec:
    """A convolution with its ReLU; `pool` adds a 3x3 max pool of stride 2 behind it."""

    out_chans: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    pool: bool = False


@dataclass(frozen=True)
class AlexNetSpec:
    """The sizes of the layers of an AlexNet.

    Attributes:
        convs: the convolutions.
        grid: side of the pooled feature map that the first dense layer takes.
        hidden: outputs of the first two dense layers.
        pool_ceil: whether max pools round the sides of their output up.
        norm: whether a batch norm follows each convolution, where the AlexNet of 2012 normalized
            responses.
    """

    convs: tuple[ConvSpec, ...]
    grid: int
    hidden: int
    pool_ceil: bool = False
    norm: bool = False


ALEXNET = AlexNetSpec(
    convs=(
        ConvSpec(64, kernel_size=11, stride=4, padding=2, pool=True),
        ConvSpec(192, kernel_size=5, padding=2, pool=True),
        ConvSpec(384, kernel_size=3, padding=1),
        ConvSpec(256, kernel_size=3, padding=1),
        ConvSpec(256, kernel_size=3, padding=1, pool=True),
    ),
    grid=6,
    hidden=4096,
)


class AlexNet(PlainNetwork):
    """Convolutions (`features`), a pooled grid (`avgpool`), three dense layers (`classifier`).

    Args:
        spec: the sizes of the layers.
        num_classes: outputs of the last dense layer; 0 leaves it out.
        in_chans: channels of the input.
        drop_rate: dropout before each of the first two dense layers.
        global_pool: timm's keyword; only `"avg"` and `""` are supported.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Raises:
        ValueError: `global_pool` is not supported.
    """

    last = 6

    def __init__(
        self,
        spec: AlexNetSpec = ALEXNET,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.5,
        global_pool: str = "avg",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(global_pool)
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.num_features = spec.convs[-1].out_chans
        self.head_hidden_size = spec.hidden
        self.feature_info: list[dict[str, Any]] = []
        factory: dict[str, Any] = {"device": device, "dtype": dtype}

        layers: list[nn.Module] = []
        chans, reduction = in_chans, 1
        for conv in spec.convs:
            layers.append(
                nn.Conv2d(
                    chans,
                    conv.out_chans,
                    conv.kernel_size,
                    stride=conv.stride,
                    padding=conv.padding,
                    bias=not spec.norm,
                    **factory,
                )
            )
            if spec.norm:
                layers.append(nn.BatchNorm2d(conv.out_chans, **factory))
            layers.append(nn.ReLU(inplace=True))
            chans, reduction = conv.out_chans, reduction * conv.stride
            if conv.pool:
                layers.append(nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=spec.pool_ceil))
                reduction *= 2
                self.feature_info.append(
                    {
                        "num_chs": chans,
                        "reduction": reduction,
                        "module": f"features.{len(layers) - 1}",
                    }
                )
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((spec.grid, spec.grid))
        self.classifier = nn.Sequential(
            nn.Dropout(drop_rate),
            nn.Linear(chans * spec.grid**2, spec.hidden, **factory),
            nn.ReLU(inplace=True),
            nn.Dropout(drop_rate),
            nn.Linear(spec.hidden, spec.hidden, **factory),
            nn.ReLU(inplace=True),
            self._last_layer(**factory),
        )
        self._initialize_weights()

    def _initialize_weights(self) -> None:
        """Kaiming normal for ReLU (He et al. 2015, eq. 10), zero biases, a small last layer."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if isinstance(self.get_classifier(), nn.Linear):
            nn.init.normal_(self.get_classifier().weight, std=0.01)

    def _last_layer(self, **factory: Any) -> nn.Module:
        if self.num_classes <= 0:
            return nn.Identity()
        return nn.Linear(self.head_hidden_size, self.num_classes, **factory)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map feature maps to logits (N, num_classes), or to features (N, hidden)."""
        x = torch.flatten(self.avgpool(x), 1)
        x = self.classifier[:-1](x)
        return x if pre_logits else self.classifier[-1](x)


def create_alexnet(variant: str, spec: AlexNetSpec, pretrained: bool, **kwargs: Any) -> AlexNet:
    """Build a variant as timm builds its models; `kwargs` are those of `AlexNet` and of timm."""
    out_indices: Sequence[int] = kwargs.pop("out_indices", (0, 1, 2))
    return build_model_with_cfg(
        AlexNet,
        variant,
        pretrained,
        spec=spec,
        feature_cfg={"flatten_sequential": True, "out_indices": out_indices},
        **kwargs,
    )


default_cfgs = generate_default_cfgs(
    {
        "alexnet.tv_in1k": {
            "url": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (6, 6),
            "crop_pct": 224 / 256,
            "interpolation": "bilinear",
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "first_conv": "features.0",
            "classifier": "classifier.6",
            "license": "bsd-3-clause",
            "origin_url": "https://github.com/pytorch/vision",
            "paper_ids": "arXiv:1404.5997",
        }
    }
)

if not timm.models.is_model("alexnet"):

    @register_model
    def alexnet(pretrained: bool = False, **kwargs: Any) -> AlexNet:
        """AlexNet as torchvision ships it, with 61,100,840 parameters for 1000 classes."""
        return create_alexnet("alexnet", ALEXNET, pretrained, **kwargs)

"""What timm asks of a network that is a sequence of feature layers and a sequence behind it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class PlainNetwork(nn.Module):
    """A network of `features` and `classifier`, with timm's methods.

    Attributes:
        features: maps images to feature maps.
        classifier: maps these, or what `forward_head` makes of them, to logits.
        num_classes: outputs of the classifier's last layer with weights; 0 leaves that layer out.
        last: its place in `classifier`.
    """

    features: nn.Sequential
    classifier: nn.Sequential
    num_classes: int
    last: int

    def __init__(self, global_pool: str) -> None:
        super().__init__()
        self._check_pool(global_pool)

    def _check_pool(self, global_pool: str | None) -> None:
        if global_pool not in (None, "", "avg"):
            name = type(self).__name__
            raise ValueError(f"{name} supports global_pool='avg' only, not {global_pool!r}")

    def _last_layer(self, **factory: Any) -> nn.Module:
        """A new last layer with `num_classes` outputs, or an Identity."""
        raise NotImplementedError

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Group parameters as timm does, for layer-wise learning rates."""
        return {"stem": r"^features\.0", "blocks": r"^features\.(\d+)"}

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Refuse gradient checkpointing, which would save little in so few layers."""
        if enable:
            raise ValueError(f"{type(self).__name__} has no gradient checkpointing")

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The last layer with weights; an Identity if `num_classes` is 0."""
        return self.classifier[self.last]

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a new one with `num_classes` outputs; 0 leaves it out."""
        self._check_pool(global_pool)
        weight = next(self.parameters())
        self.num_classes = num_classes
        self.classifier[self.last] = self._last_layer(device=weight.device, dtype=weight.dtype)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (N, in_chans, H, W) to feature maps (N, num_features, h, w)."""
        return self.features(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map feature maps to logits (N, num_classes), or to what the last layer takes."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, in_chans, H, W) to logits (N, num_classes)."""
        return self.forward_head(self.forward_features(x))

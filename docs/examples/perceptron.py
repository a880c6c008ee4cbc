"""A model: a small perceptron, registered with timm under a name."""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from vqzoo.plugin import hookimpl

vqzoo_contract = 1

default_cfgs = generate_default_cfgs(
    {
        "example_perceptron": {
            "input_size": (1, 28, 28),
            "num_classes": 10,
            "first_conv": None,
            "classifier": "head",
        }
    }
)


class Perceptron(nn.Module):
    """Two dense layers."""

    def __init__(self, num_classes: int = 10, in_chans: int = 1, **kwargs: Any) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.hidden = nn.Linear(in_chans * 28 * 28, 128)
        self.head = nn.Linear(128, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of (batch, in_chans, 28, 28) images."""
        return self.head(self.hidden(images.flatten(1)).relu())


@register_model
def example_perceptron(pretrained: bool = False, **kwargs: Any) -> Perceptron:
    """Build the perceptron, as in `vqzoo run example_perceptron --weights random`."""
    model: Perceptron = build_model_with_cfg(Perceptron, "example_perceptron", pretrained, **kwargs)
    return model


@hookimpl
def vqzoo_models() -> None:
    """Do nothing: importing this module has registered the model."""

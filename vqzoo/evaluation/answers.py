"""A network's answers to images, whatever its precision and the container of its logits."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vqzoo.errors import UsageError, VqzooError, one_line

_AT_ONCE = 32 * 3 * 224 * 224  # values of images that go through a network on the CPU together


def logits_of(network: nn.Module, images: Tensor) -> Tensor:
    """The logits that a network gives for a batch of images.

    On the CPU, 32 images of 3 x 224 x 224 go through the network at a time: more are no faster, and
    their activations would take gigabytes.

    Args:
        network: it returns the logits, or holds them in `logits` or under "logits" (as
            Transformers and torchvision's GoogLeNet do).
        images: (B, C, H, W), on the network's device; converted to the precision of its weights.

    Returns:
        (B, classes), in the network's precision.

    Raises:
        UsageError: the network returns something else.
        VqzooError: the network fails on images of this shape.
    """
    at_once = len(images)
    if images.device.type == "cpu" and images.numel() > _AT_ONCE:
        at_once = max(1, _AT_ONCE * at_once // images.numel())
    if at_once >= len(images):
        return _logits_of(network, images)
    return torch.cat([_logits_of(network, part) for part in images.split(at_once)])


def _logits_of(network: nn.Module, images: Tensor) -> Tensor:
    answer = run_on(network, network, images)
    logits = answer.get("logits") if isinstance(answer, Mapping) else answer
    logits = logits if isinstance(logits, Tensor) else getattr(answer, "logits", None)
    if not isinstance(logits, Tensor):
        raise UsageError(
            f"the network returns {_described(answer)}, not a tensor of logits: wrap it in a "
            "module that returns the logits"
        )
    if logits.ndim != 2 or len(logits) != len(images):
        raise UsageError(
            f"the network returns a tensor of shape {tuple(logits.shape)} for {len(images)} "
            "images, not (images, classes)"
        )
    return logits


def run_on(network: nn.Module, call: Callable[[Tensor], Any], images: Tensor) -> Any:
    """Call a network, or a function of it, on images in the precision of its weights.

    Raises:
        VqzooError: it fails on images of this shape.
    """
    try:
        return call(in_precision_of(network, images))
    except (VqzooError, MemoryError):
        raise
    except Exception as error:  # the user's own code may raise anything
        shape = " x ".join(str(size) for size in images.shape[1:])
        raise VqzooError(f"the network fails on images of {shape}: {one_line(error)}") from error


def in_precision_of(network: nn.Module, images: Tensor) -> Tensor:
    """Images in the dtype of a network's first floating-point parameter; integers stay integers."""
    floating = (p.dtype for p in network.parameters() if p.is_floating_point())
    return images.to(next(floating, images.dtype)) if images.is_floating_point() else images


def _described(answer: Any) -> str:
    if isinstance(answer, tuple | list):
        return f"a {type(answer).__name__} of {len(answer)}"
    return f"a {type(answer).__name__}"

"""Batch norms folded into the layers before them, and merged into two vectors."""

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vqzoo.compression.norms.uses import is_foldable, is_norm, norms_behind_layers
from vqzoo.data.model_input import input_size
from vqzoo.errors import UsageError, VqzooError, cause

_TOLERANCE = 1e-4  # of the largest output
_SCALES = (1.0, 8.0)  # of the random images that both networks run on
_NEARLY_ONE = 2.0**-20  # how far a scale may be from 1 and become 1


@dataclass(frozen=True)
class FoldedNorms:
    """A network whose batch norms have been folded.

    Attributes:
        module: a copy in eval mode; it shares the tensors that are not changed.
        layers: norm -> the layer that it was folded into, by module path.
        kept: other norms -> why they were not.
        difference: largest difference of the answers to random images, as a share of the largest.
    """

    module: nn.Module
    layers: dict[str, str]
    kept: dict[str, str]
    difference: float


def fold_norms(model: nn.Module) -> FoldedNorms:
    """Fold each batch norm into the layer that it directly follows, where nothing else sees the
    outputs of that layer.

    The weights of the layer get the scale of the norm, γ/√(σ² + ε), and its bias becomes zero. The
    norm keeps its class and the scale of what it normalizes: behind the new weights, its statistics
    are right for a scale of 1. `merge_norms` makes constants of them.

    Args:
        model: it is not changed.

    Raises:
        UsageError: the model has no batch norm, or does not run on images.
        VqzooError: the folded network gives other answers.
    """
    if not any(map(is_foldable, model.modules())):
        kinds = ", ".join(sorted({type(m).__name__ for m in model.modules() if is_norm(m)}))
        raise UsageError(
            f"there is no float32 batch norm with statistics, a scale and a shift to fold in this "
            f"network (its norms: {kinds or 'none'}): leave out --fold-norms"
        )
    images = _images(model)
    network = copy.deepcopy(model).eval()
    try:
        layers, kept = norms_behind_layers(network, images)
    except Exception as error:
        raise UsageError(
            f"the network cannot be run to see which norms follow which layers: {cause(error)}"
        ) from error
    folded = fold_into(network, layers)
    return FoldedNorms(folded, layers, kept, _difference(network, folded, images))


@torch.no_grad()
def fold_into(model: nn.Module, layers: Mapping[str, str]) -> nn.Module:
    """A copy of a model with some norms folded into some layers, whose fitness is not checked.

    Args:
        model: it is not changed.
        layers: norm -> layer.

    Raises:
        UsageError: the model has no such norm or layer, or their sizes differ.
    """
    network = copy.deepcopy(model)
    modules: dict[str, Any] = dict(network.named_modules())
    for path, layer_path in layers.items():
        norm, layer = modules.get(path, network), modules.get(layer_path, network)
        weight = layer._parameters.get("weight")
        if weight is None or not is_foldable(norm):
            raise UsageError(
                f"the network has no batch norm {path!r:.80} behind {layer_path!r:.80}"
            )
        if len(weight) != norm.num_features:
            raise UsageError(f"{path!r:.80} does not fit {layer_path!r:.80}")
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        mean = norm.running_mean.double()
        if layer._parameters.get("bias") is not None:
            mean = mean - layer.bias.double()
            layer.bias.zero_()
        rows = scale.view(-1, *[1] * (weight.dim() - 1))
        weight.copy_(weight.double() * rows)
        # With these, the norm's scale is 1, and its variance that of the layer's new outputs: the
        # square of its weight. The smallest weights have no variance below ε to be right for.
        size = norm.weight.double().abs().clamp(min=norm.eps**0.5)
        norm.running_mean.copy_(mean * scale)
        norm.running_var.copy_(size**2 - norm.eps)
        norm.weight.copy_(size)
    return network


@torch.no_grad()
def merge_norms(model: nn.Module) -> nn.Module:
    """A copy whose batch norms have constant statistics: scale and shift become weight and bias.

    Where the scale is 1, as behind a layer that the norm was folded into, the weight is constant,
    too. A file in the compact layout then holds the shifts alone.

    Args:
        model: in eval mode; it is not changed.
    """
    network = copy.deepcopy(model)
    owners = Counter(
        id(tensor)
        for module in network.modules()
        for tensor in [*module._parameters.values(), *module._buffers.values()]
    )
    for module in network.modules():
        norm: Any = module
        if not is_foldable(module) or any(
            owners[id(tensor)] > 1
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        ):
            continue
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        shift = norm.bias.double() - norm.running_mean.double() * scale
        if float((scale - 1).abs().max()) <= _NEARLY_ONE:
            scale = torch.ones_like(scale)
        variance, weight = _of_scale_one(norm.eps)
        norm.weight.copy_(scale * weight)
        norm.bias.copy_(shift)
        norm.running_mean.zero_()
        norm.running_var.fill_(variance)
    return network


def _of_scale_one(eps: float) -> tuple[float, float]:
    """A variance and a weight that make a norm's scale 1, both exact in float16.

    Rounding 1 - ε to float16 would change every scale by up to 2^-12. Of the pairs of two numbers
    of float16, the best one is right to about 2^-21.
    """
    variances = np.arange(0.5, 1.0, 2.0**-11)  # all of float16 between these
    exact = np.sqrt(variances + eps)
    weights = exact.astype(np.float16).astype(np.float64)
    best = int(np.abs(weights / exact - 1).argmin())
    return float(variances[best]), float(weights[best])


def _images(model: nn.Module) -> Tensor:
    """Random images of the size that the model expects, small and large."""
    try:
        size = input_size(model)
    except Exception as error:
        raise UsageError(
            f"norms are folded by running the network on images, whose size is not known: "
            f"{cause(error)}"
        ) from error
    images = torch.randn(len(_SCALES), *size, generator=torch.Generator().manual_seed(0))
    device = next(model.parameters()).device
    return (images * torch.tensor(_SCALES).view(-1, 1, 1, 1)).to(device)


def _difference(network: nn.Module, folded: nn.Module, images: Tensor) -> float:
    """How far the answers of two networks differ that ought to be the same function.

    Raises:
        UsageError: the answers are not tensors.
        VqzooError: they differ by more than rounding.
    """
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        pair = []
        for one in (network, folded):
            torch.manual_seed(0)
            pair.append(one(images))
    if not all(isinstance(answer, Tensor) for answer in pair):
        raise UsageError("norms are folded in networks that return one tensor")
    expected, answer = (one.double() for one in pair)
    difference = float((answer - expected).abs().max()) / max(float(expected.abs().max()), 1e-30)
    if not difference <= _TOLERANCE:
        raise VqzooError(
            f"folding batch norms changes the answers of this network by {difference:.1g} of the "
            "largest: leave out --fold-norms"
        )
    return difference

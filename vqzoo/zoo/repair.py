"""Repair of a compressed network without labels: biases, and statistics of batch norms."""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vqzoo.zoo.images import Batch
from vqzoo.zoo.watcher import Steps

_BatchNorm = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class Repaired:
    """A repaired network.

    Attributes:
        module: a copy, in eval mode.
        biases: names of the layers whose biases were corrected.
        norms: names of the batch norms whose statistics were estimated again.
    """

    module: nn.Module
    biases: list[str]
    norms: list[str]


@torch.no_grad()
def repair(
    dense: nn.Module,
    compressed: nn.Module,
    layers: Iterable[str],
    batches: Callable[[], Iterator[Batch]],
    images: int,
    *,
    device: torch.device | None = None,
    progress: Steps | None = None,
) -> Repaired:
    """Correct what compression shifted, by the means over some images.

    Biases: compression changes a layer's mean output by E[(Ŵ - W)x], which its bias takes back
    (Nagel et al. 2019, arXiv 1906.04721, section 4.2; measured here on the dense network's
    inputs). Batch norms: mean and variance of what reaches them now, averaged over the batches.

    Args:
        dense: the network before.
        compressed: the same with decoded weights; it is not changed.
        layers: the compressed ones.
        batches: preprocessed images; iterated twice where there are batch norms.
        images: how many there are in all.
        device: where to run the networks.
        progress: called with (images done, images to go through).
    """
    device = device or torch.device("cpu")
    dense = copy.deepcopy(dense).to(device).eval()
    module = copy.deepcopy(compressed).to(device).eval()
    norms = {n: m for n, m in module.named_modules() if _has_statistics(m)}
    passes = 2 if norms else 1
    done = [0]

    def run(network: nn.Module) -> None:
        for batch in batches():
            network(batch.images.to(device))
            done[0] += len(batch.images)
            if progress is not None:
                progress(done[0], passes * images)

    biases = _correct_biases(dense, module, layers, run)
    if norms:
        with _estimating(list(norms.values())):
            run(module)
    return Repaired(module.cpu(), biases, list(norms))


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.running_mean is not None


def _correct_biases(
    dense: nn.Module,
    module: nn.Module,
    layers: Iterable[str],
    run: Callable[[nn.Module], None],
) -> list[str]:
    """Add the mean difference of each layer's outputs, on the same inputs, to its bias."""
    sums: dict[str, tuple[Tensor, int]] = {}

    def compare(name: str, layer: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        difference = output - module.get_submodule(name)(*arguments)
        channel = 1 if isinstance(layer, nn.Conv1d | nn.Conv2d) else -1
        flat = difference.movedim(channel, 0).flatten(1).double()
        total, count = sums.get(name, (torch.zeros(()), 0))
        sums[name] = (total.to(flat) + flat.sum(1), count + flat.shape[1])

    hooks = [
        dense.get_submodule(name).register_forward_hook(partial(compare, name))
        for name in layers
        if isinstance(getattr(dense.get_submodule(name), "bias", None), Tensor)
    ]
    run(dense)
    for hook in hooks:
        hook.remove()
    for name, (total, count) in sums.items():
        bias = module.get_submodule(name).bias
        assert isinstance(bias, Tensor)
        bias += (total / count).to(bias)
    return list(sums)


@contextmanager
def _estimating(norms: list[Any]) -> Iterator[None]:
    """Within the block, batch norms gather the plain average of their batches' statistics."""
    kept = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, kept, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(tracked)
            norm.eval()

"""Repair of a compressed network without labels: biases, and statistics of batch norms."""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vqzoo.data.batches import Batch
from vqzoo.progress import Steps

_BatchNorm = nn.modules.batchnorm._BatchNorm
Runs = Callable[..., Iterator[Any]]


@dataclass(frozen=True)
class Repaired:
    """A repaired network.

    Attributes:
        module: a copy, in eval mode.
        biases: names of the layers whose biases were corrected.
        norms: names of the batch norms whose statistics were estimated again.
        divergence: from the dense network's answers on the images, in nats an image: before the
            repair, and after it.
    """

    module: nn.Module
    biases: list[str]
    norms: list[str]
    divergence: tuple[float, float]


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

    Batch norms first: mean and variance of what reaches them now, averaged over the batches. Then,
    one after the other, the biases of compressed layers: each takes back what the mean output of
    its layer has moved by, the layers before it being corrected already (Nagel et al. 2019, arXiv
    1906.04721, section 4.2). A layer whose output goes straight into a batch norm needs none.

    Either correction is kept only if it brings the answers nearer to the dense network's: at low
    rates a layer's outputs shrink as a whole, and a mean put right alone makes that worse.

    Args:
        dense: the network before.
        compressed: the same with decoded weights; it is not changed.
        layers: the compressed ones.
        batches: preprocessed images; iterated once for each bias, and some times more.
        images: how many there are in all.
        device: where to run the networks.
        progress: called with (images done, images to go through).
    """
    device = device or torch.device("cpu")
    dense = copy.deepcopy(dense).to(device).eval()
    best = copy.deepcopy(compressed).to(device).eval()
    biased = [name for name in layers if _bias(best, name) is not None]
    norms = [name for name, module in best.named_modules() if _has_statistics(module)]
    total = images * (2 + 2 * bool(norms) + (2 + len(biased)) * bool(biased))
    done = [0]

    def run(network: nn.Module, least: int = 1) -> Iterator[Any]:
        for batch in batches():
            with suppress(_Reached):
                if len(batch.images) >= least:
                    yield network(batch.images.to(device))
            done[0] += len(batch.images)
            if progress is not None:
                progress(min(done[0], total), total)

    answers = [_log_odds(answer) for answer in run(dense)]

    def divergence(network: nn.Module) -> float:
        pairs = zip(answers, map(_log_odds, run(network)), strict=True)
        sums = [float((a.exp() * (a - b)).sum()) for a, b in pairs]
        return sum(sums) / sum(map(len, answers))

    before = least = divergence(best)
    kept_norms: list[str] = []
    kept_biases: list[str] = []
    if norms:
        changed = _with_new_statistics(best, norms, run)
        if (found := divergence(changed)) < least:
            best, least, kept_norms = changed, found, norms
    if biased:
        changed, corrected = _with_corrected_biases(dense, best, biased, run)
        if (found := divergence(changed)) < least:
            best, least, kept_biases = changed, found, corrected
    if progress is not None:
        progress(total, total)
    return Repaired(best.cpu(), kept_biases, kept_norms, (before, least))


class _Reached(Exception):
    """A forward pass has come as far as it is needed."""


def _bias(module: nn.Module, layer: str) -> Tensor | None:
    bias = getattr(module.get_submodule(layer), "bias", None)
    return bias if isinstance(bias, Tensor) else None


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.running_mean is not None


def _log_odds(answers: Tensor) -> Tensor:
    """(images, classes) log-probabilities, float64."""
    return answers.flatten(1).double().log_softmax(1)


def _with_new_statistics(network: nn.Module, norms: Iterable[str], run: Runs) -> nn.Module:
    """A copy whose batch norms have the plain average of their batches' statistics.

    A batch of one image has none, where norms see one value of a channel.
    """
    changed = copy.deepcopy(network)
    modules: list[Any] = [changed.get_submodule(name) for name in norms]
    kept = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in modules]
    for norm in modules:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    batches = sum(1 for _ in run(changed, least=2))
    for norm, (momentum, tracked) in zip(modules, kept, strict=True):
        norm.momentum = momentum
        norm.num_batches_tracked.copy_(tracked)
        norm.eval()
    return changed if batches else network


def _with_corrected_biases(
    dense: nn.Module, network: nn.Module, layers: Iterable[str], run: Runs
) -> tuple[nn.Module, list[str]]:
    """A copy whose layers' outputs have the means that they have in the dense network."""
    changed = copy.deepcopy(network)
    wanted = _mean_outputs(dense, layers, run)
    for name, mean in wanted.items():
        bias = _bias(changed, name)
        assert bias is not None
        bias += (mean - _mean_outputs(changed, [name], run, stop=True)[name]).to(bias)
    return changed, list(wanted)


def _mean_outputs(
    network: nn.Module, layers: Iterable[str], run: Runs, stop: bool = False
) -> dict[str, Tensor]:
    """Layer -> mean of its outputs, (channels,) float64, in the order of the forward pass.

    Layers that feed batch norms are left out. With `stop`, passes end behind the layer.
    """
    sums: dict[str, tuple[Tensor, int]] = {}
    last: dict[str, Tensor] = {}
    feeding: set[str] = set()

    def watch(name: str, layer: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        channel = 1 if isinstance(layer, nn.Conv1d | nn.Conv2d) else -1
        flat = output.movedim(channel, 0).flatten(1).double()
        total, count = sums.get(name, (flat.new_zeros(len(flat)), 0))
        sums[name] = (total + flat.sum(1), count + flat.shape[1])
        last[name] = output
        if stop:
            raise _Reached

    def meet(norm: nn.Module, arguments: tuple[Any, ...]) -> None:
        feeding.update(name for name, output in last.items() if output is arguments[0])

    hooks = [
        network.get_submodule(name).register_forward_hook(partial(watch, name)) for name in layers
    ]
    if not stop:
        norms = [m for m in network.modules() if _has_statistics(m)]
        hooks += [norm.register_forward_pre_hook(meet) for norm in norms]
    for _ in run(network):
        pass
    for hook in hooks:
        hook.remove()
    return {name: total / count for name, (total, count) in sums.items() if name not in feeding}

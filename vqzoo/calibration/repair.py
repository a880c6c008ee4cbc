"""Repair of a compressed network without labels: biases, and statistics of batch norms."""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vqzoo.calibration.biases import OutputMeans, bias_of, with_corrected_biases
from vqzoo.calibration.norms import has_statistics, with_new_statistics
from vqzoo.calibration.passes import Passes
from vqzoo.compression.view import is_parameter
from vqzoo.data.batches import Batch, Data
from vqzoo.progress import Steps, Watcher

# How far a network's answers are from the dense network's, in nats.
Judge = Callable[[nn.Module], float]


@dataclass(frozen=True)
class Repaired:
    """A repaired network.

    Attributes:
        module: a copy of the compressed network, in eval mode.
        biases: names of the layers whose biases were corrected.
        norms: names of the batch norms whose statistics were estimated again.
        divergence: from the dense network's answers, in nats an image, on the images or as judged
            elsewhere: before the repair, and after it.
    """

    module: nn.Module
    biases: list[str]
    norms: list[str]
    divergence: tuple[float, float]


def repair_with(
    data: Data,
    dense: nn.Module,
    compressed: nn.Module,
    layers: Iterable[str],
    *,
    device: torch.device,
    watcher: Watcher,
    judge: Judge | None = None,
) -> Repaired:
    """`repair` on calibration data of known length, reported to a watcher."""
    assert data.images is not None
    with watcher.images(f"repairing on {data.name}") as steps:
        return repair(
            dense,
            compressed,
            layers,
            data.batches,
            data.images,
            device=device,
            progress=steps,
            judge=judge,
        )


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
    judge: Judge | None = None,
) -> Repaired:
    """Correct what compression shifted, by means over some images.

    Batch norms come first: their mean and variance become the average over the batches of what
    reaches them now. Biases of compressed layers come next; see `with_corrected_biases`. A layer
    whose output goes straight into a batch norm needs no correction. The input projections of
    nn.MultiheadAttention, whose outputs no module returns, are not corrected.

    Each of the two corrections is kept only if it brings the answers nearer to the dense network's:
    at low rates a layer's outputs shrink as a whole, and correcting their mean alone makes that
    worse.

    Args:
        dense: the network before compression.
        compressed: the same network with decoded weights; it is not changed.
        layers: names of the compressed layers.
        batches: starts an iteration over the preprocessed images, the same ones every time.
        images: the number of images in all batches together.
        device: where to run the networks; the CPU unless given.
        progress: called with (images done, images to go through).
        judge: decides on other images than the ones that the corrections follow from.
    """
    device = device or torch.device("cpu")
    home = next(compressed.parameters()).device
    dense = copy.deepcopy(dense).to(device).eval()
    best = copy.deepcopy(compressed).to(device).eval()
    modules = [name for name in layers if not is_parameter(name)]
    biased = [name for name in modules if bias_of(best.get_submodule(name)) is not None]
    norms = [name for name, module in best.named_modules() if has_statistics(module)]
    passes = Passes(batches, images, device, progress)
    passes.planned = 2 + 2 * bool(norms) + bool(biased)

    means = OutputMeans()
    with means.of(dense, biased):
        dense_answers = [_log_odds(answer) for answer in passes.run(dense)]
    del dense

    def divergence(network: nn.Module, answers: Iterable[Any] | None = None) -> float:
        if judge is not None:
            return judge(network)
        answers = passes.run(network) if answers is None else answers
        pairs = zip(dense_answers, map(_log_odds, answers), strict=True)
        sums = [float((a.exp() * (a - b)).sum()) for a, b in pairs]
        return sum(sums) / sum(map(len, dense_answers))

    before = least = divergence(best)
    kept_norms: list[str] = []
    kept_biases: list[str] = []
    if norms:
        changed = with_new_statistics(best, norms, passes)
        if (now := divergence(changed)) < least:
            best, least, kept_norms = changed, now, norms
    if corrected := list(means.means()):
        changed, answers = with_corrected_biases(best, means, passes)
        if (now := divergence(changed, answers)) < least:
            best, least, kept_biases = changed, now, corrected
    passes.finish()
    return Repaired(best.to(home), kept_biases, kept_norms, (before, least))


def _log_odds(answers: Tensor) -> Tensor:
    """(images, classes) log-probabilities, float64."""
    return answers.flatten(1).double().log_softmax(1)

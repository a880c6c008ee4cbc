"""Repair of a compressed network without labels: biases, and statistics of batch norms."""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from vqzoo.calibration.corrections import bias_of, with_corrected_layers
from vqzoo.calibration.moments import Moments
from vqzoo.calibration.norms import has_statistics
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
        norms: names of the batch norms whose statistics were moved.
        divergence: from the dense network's answers, in nats an image, on images held out or as
            judged elsewhere: before the repair, and after it.
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

    Statistics of batch norms come first, biases of compressed layers next; see
    `with_corrected_layers`. A layer whose output goes straight into a batch norm needs no
    correction. The input projections of nn.MultiheadAttention, whose outputs no module returns, are
    not corrected.

    Each of the two corrections is kept only if it brings the answers to images that it does not
    follow from nearer to the dense network's: few images are a noisy guide, and at low rates a
    layer's outputs shrink as a whole, so that correcting their mean alone makes that worse.

    Args:
        dense: the network before compression.
        compressed: the same network with decoded weights; it is not changed.
        layers: names of the compressed layers.
        batches: starts an iteration over the preprocessed images, the same ones every time.
        images: the number of images in all batches together.
        device: where to run the networks; the CPU unless given.
        progress: called with (images done, images to go through).
        judge: decides by other images. Without it, every fourth image is held out and decides; of
            fewer than four images, all do both.
    """
    device = device or torch.device("cpu")
    home = next(compressed.parameters()).device
    dense = copy.deepcopy(dense).to(device).eval()
    best = copy.deepcopy(compressed).to(device).eval()
    modules = [name for name in layers if not is_parameter(name)]
    biased = [name for name in modules if bias_of(best.get_submodule(name)) is not None]
    norms = [name for name, module in best.named_modules() if has_statistics(module)]
    if judge is None:
        held_out = partial(_every_fourth, batches, held_out=True) if images >= 4 else batches
        judge = _judge_by(held_out, dense, device)
        if images >= 4:
            batches, images = partial(_every_fourth, batches, held_out=False), images - images // 4
    passes = Passes(batches, images, device, progress)
    passes.planned = 1 + bool(norms) + bool(biased)
    moments = Moments()
    with moments.of(dense, [*norms, *biased]):
        for _ in passes.run(dense):
            pass
    del dense
    before = least = judge(best)
    kept: dict[bool, list[str]] = {}  # batch norms and biases
    for of_norms in (True, False):
        chosen = [name for name in moments.names() if (name in norms) == of_norms]
        kept[of_norms] = []
        if not chosen:
            continue
        changed = with_corrected_layers(best, moments, chosen, passes)
        if (now := judge(changed)) < least:
            best, least, kept[of_norms] = changed, now, chosen
    passes.finish()
    return Repaired(best.to(home), kept[False], kept[True], (before, least))


def _every_fourth(batches: Callable[[], Iterator[Batch]], *, held_out: bool) -> Iterator[Batch]:
    """Every fourth image, or all others; batches without any are left out."""
    start = 0
    for batch in batches():
        chosen = (torch.arange(start, start + len(batch.images)) % 4 == 3) == held_out
        start += len(batch.images)
        if chosen.any():
            yield Batch(batch.images[chosen.to(batch.images.device)], None)


def _judge_by(
    batches: Callable[[], Iterator[Batch]], dense: nn.Module, device: torch.device
) -> Judge:
    """The mean divergence from the dense network's answers to these images, in nats."""
    answers = [_log_odds(dense(batch.images.to(device))) for batch in batches()]

    def divergence(network: nn.Module) -> float:
        now = (_log_odds(network(batch.images.to(device))) for batch in batches())
        sums = [float((a.exp() * (a - b)).sum()) for a, b in zip(answers, now, strict=True)]
        return sum(sums) / sum(map(len, answers))

    return divergence


def _log_odds(answers: Tensor) -> Tensor:
    """(images, classes) log-probabilities, float64."""
    return answers.flatten(1).double().log_softmax(1)

"""Recovery of a decoded network: corrected biases and norms first, then all floats."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from vqzoo.calibration.repair import repair_with
from vqzoo.data.batches import Data
from vqzoo.evaluation.accuracy import agreement
from vqzoo.finetuning.recovery.loop import learn_answers
from vqzoo.plugin.code import MethodCode
from vqzoo.plugin.manager import Plugins
from vqzoo.progress import Watcher


@dataclass(frozen=True)
class Recovered:
    """A network after recovery.

    Attributes:
        module: the decoded network, in eval mode, on the CPU.
        codes: layer -> code, its floats rounded to their storage dtypes.
        biases: names of the layers whose biases were corrected at the start.
        norms: names of the batch norms whose statistics were estimated again at the start.
        best_epoch: the epoch that the values are from; 0 for those from before the first.
        epochs: divergence before the first epoch, and after each.
        divergence: mean KL from the dense network on the held-out images, in nats: without
            recovery, and with it, which is at most the former.
    """

    module: nn.Module
    codes: Mapping[str, MethodCode]
    biases: list[str]
    norms: list[str]
    best_epoch: int
    epochs: list[float]
    divergence: tuple[float, float]


def recover(
    model: nn.Module,
    codes: Mapping[str, MethodCode],
    dense: nn.Module,
    images: Data,
    held_out: Data,
    plugins: Plugins,
    watcher: Watcher,
    *,
    seed: int,
    device: torch.device,
    stored: Callable[[nn.Module], nn.Module] = lambda network: network,
) -> Recovered:
    """Bring a compressed network's answers nearer to the dense network's, by a few images.

    Every step is kept only if the network, as it would be stored, then diverges less on images
    that no step learns from: a few hundred images easily teach more than is true of others.

    Args:
        model: the decoded network; it is not changed.
        codes: layer -> code of its weight.
        dense: the network before compression; it is not changed.
        images: what is learned from; labels are not used.
        held_out: what decides.
        plugins: the loaded plugins.
        watcher: receives progress.
        seed: of the views of the images. The same seed gives the same values on one machine with
            one number of threads.
        device: where to compute.
        stored: what storing makes of a network: a network whose dense tensors are rounded.

    Raises:
        VqzooError: there is nothing to train, or the networks fail on the images.
    """

    dense = copy.deepcopy(dense).eval().requires_grad_(False)

    def judge(network: nn.Module) -> float:
        kl = agreement(dense, stored(network), held_out, device=device).kl
        return max(kl, 0.0) if math.isfinite(kl) else math.inf

    repaired = repair_with(images, dense, model, codes, device=device, watcher=watcher, judge=judge)
    learned = learn_answers(
        repaired.module,
        codes,
        dense,
        images,
        judge,
        plugins,
        watcher,
        seed=seed,
        device=device,
    )
    return Recovered(
        module=learned.module,
        codes=learned.codes,
        biases=repaired.biases,
        norms=repaired.norms,
        best_epoch=learned.best_epoch,
        epochs=learned.divergence,
        divergence=(repaired.divergence[0], min(learned.divergence)),
    )

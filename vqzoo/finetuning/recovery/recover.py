"""Recovery of a decoded network: biases and norms first, then blocks, then all floats together."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vqzoo.calibration.repair import repair_with
from vqzoo.data.batches import Data
from vqzoo.evaluation.accuracy import agreement
from vqzoo.finetuning.recovery.blocks.reconstruct import reconstruct_blocks
from vqzoo.finetuning.recovery.loop import learn_answers
from vqzoo.finetuning.recovery.state import RecoveryState
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
        norms: names of the batch norms whose statistics were moved at the start.
        blocks: paths of the blocks whose reconstruction was kept.
        best_epoch: the epoch that the values are from; 0 for those from before the first.
        moved: how many codes moved up to then; those that moved twice count twice.
        epochs: divergence before the first epoch, and after each.
        divergence: mean KL from the dense network on the held-out images, in nats: without
            recovery, and with it, which is at most the former.
    """

    module: nn.Module
    codes: Mapping[str, MethodCode]
    biases: list[str]
    norms: list[str]
    blocks: list[str]
    best_epoch: int
    moved: int
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
    fits: Callable[[Mapping[str, MethodCode]], bool] = lambda codes: True,
    folder: Path | None = None,
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
        fits: whether codes, packed, take no more than they may; codes that move and do not fit move
            back.
        folder: where recovery saves its state; it goes on there after an interruption.

    Raises:
        VqzooError: there is nothing to train, or the networks fail on the images.
    """

    dense = copy.deepcopy(dense).eval().requires_grad_(False)

    def judge(network: nn.Module) -> float:
        kl = agreement(dense, stored(network), held_out, device=device).kl
        return max(kl, 0.0) if math.isfinite(kl) else math.inf

    repaired = repair_with(images, dense, model, codes, device=device, watcher=watcher, judge=judge)
    state = RecoveryState(folder)
    rebuilt = reconstruct_blocks(
        repaired.module,
        codes,
        dense,
        images,
        judge,
        plugins,
        watcher,
        seed=seed,
        device=device,
        state=state,
    )
    learned = learn_answers(
        rebuilt.module,
        rebuilt.codes,
        dense,
        images,
        judge,
        plugins,
        watcher,
        seed=seed,
        device=device,
        state=state,
        fits=fits,
    )
    return Recovered(
        module=learned.module,
        codes=learned.codes,
        biases=repaired.biases,
        norms=repaired.norms,
        blocks=rebuilt.kept,
        best_epoch=learned.best_epoch,
        moved=learned.moved,
        epochs=learned.divergence,
        divergence=(repaired.divergence[0], min(learned.divergence)),
    )

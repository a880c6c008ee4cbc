"""The floats of a compressed network learn the dense network's answers on a few images.

The codes stay. What the loss is, ½ |Δz|² of centred logits z, is also what calibration weighs
errors by: a thousand differences an image, where the divergence of confident answers says next to
nothing about other images.
"""

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vqzoo.calibration.repair import Judge
from vqzoo.data.batches import Data
from vqzoo.data.seeds import epoch_generator
from vqzoo.data.views import random_views
from vqzoo.evaluation.answers import logits_of
from vqzoo.finetuning.recovery.step_sizes import step_sizes
from vqzoo.finetuning.student import Student, make_student, write_back
from vqzoo.plugin.code import MethodCode
from vqzoo.plugin.manager import Plugins
from vqzoo.progress import Watcher

EPOCHS = 8
PATIENCE = 3  # epochs without a better one
_BATCH = 16  # views in a step
_BETAS = (0.9, 0.99)
_SENSITIVITY_VIEWS = 64  # that step sizes are measured on


@dataclass(frozen=True)
class Learned:
    """What a network has learned.

    Attributes:
        module: the decoded network, in eval mode, on the CPU.
        codes: layer -> code, its floats rounded to their storage dtypes.
        best_epoch: the epoch that the values are from; 0 for the network as it was.
        divergence: as judged at the start, and after each epoch.
    """

    module: nn.Module
    codes: Mapping[str, MethodCode]
    best_epoch: int
    divergence: list[float]


def learn_answers(
    model: nn.Module,
    codes: Mapping[str, MethodCode],
    dense: nn.Module,
    images: Data,
    judge: Judge,
    plugins: Plugins,
    watcher: Watcher,
    *,
    seed: int,
    device: torch.device,
) -> Learned:
    """Train the floats of the codes, norms and biases on random views of some images.

    The network is judged at the start and after each epoch. The result is the best of these
    networks; training ends early after some epochs without a better one.

    Args:
        model: the decoded network; it is not changed.
        codes: layer -> code of its weight.
        dense: the network before compression; it is moved to the device.
        images: what is learned from, without labels.
        judge: how far a decoded network is from the dense one, on other images.
        plugins: the loaded plugins.
        watcher: receives progress.
        seed: of the views. The same seed gives the same values on one machine with one number of
            threads.
        device: where to train.
        stored: what storing a network makes of the tensors beside the codes.

    Raises:
        VqzooError: there is nothing to train, or the networks fail on the images.
    """
    student = make_student(model, codes, plugins, "all")
    student.network.to(device)
    teacher = dense.to(device).eval()
    plain = copy.deepcopy(model).cpu().eval().requires_grad_(False)

    def measured() -> float:
        write_back(student, plain, codes, plugins)
        return judge(plain)

    history, best, best_epoch = [measured()], student.snapshot(), 0
    optimizer = _optimizer(student, teacher, images, device, seed)
    if optimizer is None:
        watcher.say("Recovery learns nothing: answers to the images are not finite.")
        return Learned(plain.cpu(), write_back(student, plain, codes, plugins), 0, history)
    for epoch in range(1, EPOCHS + 1):
        _train_epoch(student, teacher, optimizer, images, device, watcher, epoch, seed)
        history.append(measured())
        watcher.say(f"recovery, epoch {epoch} of {EPOCHS}: KL {history[-1]:.4f} on held-out images")
        if history[-1] < min(history[:-1]):
            best, best_epoch = student.snapshot(), epoch
        elif epoch - best_epoch >= PATIENCE:
            break
    student.restore(best)
    kept = write_back(student, plain, codes, plugins)
    return Learned(plain.cpu(), kept, best_epoch, history)


def _optimizer(
    student: Student, teacher: nn.Module, images: Data, device: torch.device, seed: int
) -> torch.optim.Adam | None:
    """Adam whose rate for each tensor is the step that the answers bear; None where answers are
    not finite."""
    generator = epoch_generator(seed, 0)
    views = list(_views(images, generator, device, _SENSITIVITY_VIEWS))
    with torch.no_grad():
        losses = [_loss(student.network, teacher, batch) * len(batch) for batch in views]
    loss = float(torch.stack(losses).sum()) / sum(map(len, views))
    if not math.isfinite(loss):
        return None
    sizes = step_sizes(student.network, student.tensors, views, loss, generator)
    groups = [
        {"params": [parameter], "lr": sizes[name], "first_lr": sizes[name]}
        for name, parameter in student.tensors.items()
    ]
    return torch.optim.Adam(groups, betas=_BETAS)


def _train_epoch(
    student: Student,
    teacher: nn.Module,
    optimizer: torch.optim.Adam,
    images: Data,
    device: torch.device,
    watcher: Watcher,
    epoch: int,
    seed: int,
) -> None:
    """Train on one view of each image."""
    assert images.images is not None
    done = 0
    with watcher.training(f"recovery, epoch {epoch} of {EPOCHS}") as show:
        for views in _views(images, epoch_generator(seed, epoch), device):
            share = (epoch - 1 + done / images.images) / EPOCHS
            for group in optimizer.param_groups:
                group["lr"] = group["first_lr"] * 0.5 * (1 + math.cos(math.pi * share))
            loss = _loss(student.network, teacher, views)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += len(views)
            show(done, images.images, f"loss {float(loss.detach()):.4g}")


def _views(
    images: Data, generator: torch.Generator, device: torch.device, most: int | None = None
) -> Iterator[Tensor]:
    """Views of the images in steps, in a random order within what memory holds at a time."""
    left = most
    for batch in images:
        order = torch.randperm(len(batch.images), generator=generator)[:left]
        for chosen in order.split(_BATCH):
            yield random_views(batch.images[chosen], generator).to(device)
        if left is not None:
            left -= len(order)
            if left == 0:
                return


def _loss(network: nn.Module, teacher: nn.Module, views: Tensor) -> Tensor:
    """½ |Δz|² of the centred logits, the mean over images."""
    with torch.no_grad():
        targets = logits_of(teacher, views)
    difference = logits_of(network, views) - targets
    return (difference - difference.mean(1, keepdim=True)).square().sum(1).mean() / 2

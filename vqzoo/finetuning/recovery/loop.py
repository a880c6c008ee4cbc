"""A compressed network learns the dense network's answers on a few images.

Its floats are trained, and between epochs a few codes move. What the loss is, ½ |Δz|² of centred
logits z, is also what calibration weighs errors by: a thousand differences an image, where the
divergence of confident answers says next to nothing about other images.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from vqzoo.calibration.repair import Judge
from vqzoo.data.batches import Data
from vqzoo.data.seeds import epoch_generator
from vqzoo.data.views import random_views
from vqzoo.finetuning.recovery.answers import centred
from vqzoo.finetuning.recovery.moves import move_codes, moving_layers
from vqzoo.finetuning.recovery.state import RecoveryState
from vqzoo.finetuning.recovery.step_sizes import step_sizes
from vqzoo.finetuning.recovery.trainee import make_trainee
from vqzoo.finetuning.student import Student
from vqzoo.plugin.code import Indices, MethodCode
from vqzoo.plugin.manager import Plugins
from vqzoo.progress import Watcher

EPOCHS = 8
PATIENCE = 3  # epochs without a better one
FIRST_PATIENCE = 2  # the same, where none is better than the start
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
        moved: how many codes moved up to the best epoch; those that moved twice count twice.
    """

    module: nn.Module
    codes: Mapping[str, MethodCode]
    best_epoch: int
    divergence: list[float]
    moved: int


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
    state: RecoveryState,
    fits: Callable[[Mapping[str, MethodCode]], bool],
) -> Learned:
    """Train the floats of the codes, norms and biases on random views of some images.

    The network is judged at the start and after each epoch. After an epoch, methods that can move
    codes move a few of them, if that is better. The result is the best of these networks; training
    ends early after some epochs without a better one.

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
        state: where learning goes on after an interruption.
        fits: whether codes take no more than they may.

    Raises:
        VqzooError: there is nothing to train, or the networks fail on the images.
    """
    trainee = make_trainee(model, codes, plugins, judge, device)
    student = trainee.student
    teacher = dense.to(device).eval()
    history, best, best_epoch, moved = [trainee.divergence()], _Values.of(student), 0, [0]
    optimizer = _optimizer(student, teacher, images, device, seed)
    if optimizer is None:
        watcher.say("Recovery learns nothing: answers to the images are not finite.")
        return Learned(trainee.decoded, trainee.write(), 0, history, 0)
    if (saved := state.load("epochs")) is not None:
        _Values.read(saved["now"], student).restore(student)
        best, best_epoch = _Values.read(saved["best"], student), saved["best_epoch"]
        history, moved = saved["history"], saved["moved"]
        optimizer.load_state_dict(saved["optimizer"])
        watcher.say(f"Resuming recovery after epoch {len(history) - 1} of {EPOCHS}.")
    moving = moving_layers(student, plugins)
    for epoch in range(len(history), EPOCHS + 1):
        if epoch - 1 - best_epoch >= (PATIENCE if best_epoch else FIRST_PATIENCE):
            break
        _train_epoch(student, teacher, optimizer, images, device, watcher, epoch, seed)
        now, count = trainee.divergence(), 0
        if moving:
            generator = epoch_generator(seed, EPOCHS + epoch)
            with watcher.phase(f"recovery, epoch {epoch} of {EPOCHS}: moving codes"):
                change = move_codes(
                    student,
                    moving,
                    trainee.decoded.to(device),
                    teacher,
                    _views(images, generator, device),
                    now,
                    trainee.divergence,
                    lambda: fits(trainee.write()),
                    plugins,
                    generator,
                )
            now, count = change.divergence, change.codes
        history.append(now)
        moved.append(moved[-1] + count)
        text = f"; {count:,} codes moved" if count else ""
        watcher.say(f"recovery, epoch {epoch} of {EPOCHS}: KL {now:.4f} on held-out images{text}")
        if now < min(history[:-1]):
            best, best_epoch = _Values.of(student), epoch
        state.save(
            "epochs",
            {
                "now": _Values.of(student).saved(),
                "best": best.saved(),
                "best_epoch": best_epoch,
                "history": history,
                "moved": moved,
                "optimizer": optimizer.state_dict(),
            },
        )
    best.restore(student)
    kept = trainee.write()
    return Learned(trainee.decoded, kept, best_epoch, history, moved[best_epoch])


@dataclass(frozen=True)
class _Values:
    """Everything that recovery changes in a student.

    Attributes:
        tensors: its floats.
        codes: layer -> code with the integers; the floats in it are not the student's.
    """

    tensors: dict[str, Tensor]
    codes: dict[str, MethodCode]

    @classmethod
    def of(cls, student: Student) -> "_Values":
        return cls(student.snapshot(), {name: one.codes for name, one in student.layers.items()})

    def restore(self, student: Student) -> None:
        student.restore(self.tensors)
        for name, code in self.codes.items():
            student.layers[name].change_codes(code)

    def saved(self) -> dict[str, Any]:
        """Tensors alone: floats by name, and integers by layer and part."""
        integers = {
            name: {n: p.values.cpu() for n, p in code.code.parts.items() if isinstance(p, Indices)}
            for name, code in self.codes.items()
        }
        return {"tensors": self.tensors, "codes": integers}

    @classmethod
    def read(cls, saved: Mapping[str, Any], student: Student) -> "_Values":
        """What `saved` has returned for the same student."""
        codes: dict[str, MethodCode] = {}
        for name, layer in student.layers.items():
            code, parts = layer.codes.code, dict(layer.codes.code.parts)
            for part, values in saved["codes"][name].items():
                stored = parts[part]
                assert isinstance(stored, Indices)
                parts[part] = replace(stored, values=values.to(stored.values.device))
            codes[name] = replace(layer.codes, code=replace(code, parts=parts))
        return cls(saved["tensors"], codes)


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
    sizes = step_sizes(
        lambda batch: centred(student.network, batch), student.tensors, views, loss, generator
    )
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
        targets = centred(teacher, views)
    return (centred(network, views) - targets).square().sum(1).mean() / 2

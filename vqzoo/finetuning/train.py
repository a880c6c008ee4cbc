"""The training loop: a student learns to give a teacher's answers, epoch by epoch."""

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vqzoo.data.batches import Batch
from vqzoo.data.seeds import epoch_generator
from vqzoo.data.training_data import TrainingData
from vqzoo.errors import VqzooError
from vqzoo.finetuning.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vqzoo.finetuning.loss import LossSettings, loss_of
from vqzoo.finetuning.optimizer import set_rates
from vqzoo.finetuning.validation import Validation
from vqzoo.progress import Watcher


class Learner(Protocol):
    """A network in training, and the values that training changes."""

    @property
    def network(self) -> nn.Module:
        """The network that is trained, on the device of training."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The values that training changes, by name."""

    def epoch(self, seed: int, number: int) -> AbstractContextManager[None]:
        """Be in training mode for the block. Random numbers drawn in it follow from the run's seed
        and the number of the epoch, from 0."""

    def snapshot(self) -> dict[str, Tensor]:
        """Copy `tensors` to the CPU."""

    def restore(self, values: Mapping[str, Tensor]) -> None:
        """Set `tensors` to the values of a snapshot."""

    def stored(self) -> nn.Module:
        """The network as it would be stored now, in eval mode, on the CPU."""


class TrainingSettings(LossSettings, Protocol):
    """The settings of the loop."""

    @property
    def epochs(self) -> int:
        """Passes over the training images, at most."""

    @property
    def batch_size(self) -> int:
        """Images per step."""

    @property
    def lr(self) -> float | None:
        """Learning rate at the start; None where the student decides it."""

    @property
    def patience(self) -> int | None:
        """Epochs without a better validation loss before training stops; None for never."""


@dataclass(frozen=True)
class Lessons:
    """The teacher, and the images that it answers.

    Attributes:
        teacher: gives logits of the student's shape; it is run in eval mode.
        data: training images, and perhaps validation images, preprocessed for the student.
        views: the same images in the same order, preprocessed for the teacher; None where the
            teacher takes them as the student does.
    """

    teacher: nn.Module
    data: TrainingData
    views: TrainingData | None = None

    def batches(self, seed: int, epoch: int) -> Iterator[tuple[Batch, Tensor]]:
        """The batches of an epoch, each with the teacher's view of its images."""
        batches = self.data.batches(epoch_generator(seed, epoch))
        if self.views is None:
            for batch in batches:
                yield batch, batch.images
        else:  # equal generators draw the same order, crops and mirroring
            views = self.views.batches(epoch_generator(seed, epoch))
            for batch, view in zip(batches, views, strict=True):
                yield batch, view.images


@dataclass(frozen=True)
class Trained:
    """What training made of a learner.

    Attributes:
        best: snapshot of the best epoch.
        best_epoch: its number; 0 if none was better than the start.
        history: one entry per epoch; see `FinetuningResult`.
    """

    best: dict[str, Tensor]
    best_epoch: int
    history: list[dict[str, Any]]


def train(
    learner: Learner,
    optimizer: torch.optim.Optimizer,
    lessons: Lessons,
    settings: TrainingSettings,
    watcher: Watcher,
    *,
    seed: int,
    device: torch.device,
    checkpoint: Path | None = None,
    warmup: float = 0.0,
    task: str = "fine-tuning",
) -> Trained:
    """Train until the epochs or the patience are over, and keep the best epoch.

    The best epoch is that of least validation loss, the start included; without validation images,
    the last one.

    Args:
        learner: the student.
        optimizer: of the learner's parameters; its learning rates are the initial ones.
        lessons: the teacher and its images.
        settings: how to train.
        watcher: progress callbacks.
        seed: order and augmentation of the training images, and what the learner draws.
        device: where the learner's network is; the teacher is copied there.
        checkpoint: file written after each epoch; if it exists, training resumes from it.
        warmup: fraction of all steps in which the learning rate rises from 0.
        task: what this is, for messages.

    Raises:
        VqzooError: student and teacher differ in their classes, the checkpoint belongs to another
            network, or the loss is not finite.
    """
    data = lessons.data
    teacher = copy.deepcopy(lessons.teacher).to(device).eval().requires_grad_(False)
    state = _State(learner, optimizer, settings, warmup, task)
    validation = _validation(Lessons(teacher, data, lessons.views), settings, device)
    saved = load_checkpoint(checkpoint) if checkpoint is not None else None
    if saved is not None:
        state.resume(saved)
        watcher.say(f"Resuming {task} after epoch {saved.epoch} of {settings.epochs}.")
    elif validation is not None:
        state.end_epoch(None, validation.measure(learner.stored()))
    steps = max(1, math.ceil(data.images / settings.batch_size)) if data.images else None
    while state.epoch < settings.epochs and not state.patience_is_over():
        with learner.epoch(seed, state.epoch):
            loss = _train_epoch(
                state, Lessons(teacher, data, lessons.views), steps, device, watcher, seed
            )
        state.epoch += 1
        measured = validation.measure(learner.stored()) if validation else None
        state.end_epoch(loss, measured)
        watcher.say(_line(state.history[-1], settings.epochs, data.labelled))
        if checkpoint is not None:
            save_checkpoint(checkpoint, state.checkpoint())
    return Trained(state.best, state.best_epoch, state.history)


def _validation(
    lessons: Lessons, settings: TrainingSettings, device: torch.device
) -> Validation | None:
    held_out = lessons.data.validation
    if held_out is None:
        return None
    views = None if lessons.views is None else lessons.views.validation
    return Validation(lessons.teacher, held_out, settings, device, views)


class _State:
    """The state that changes from epoch to epoch; see `train`."""

    def __init__(
        self,
        learner: Learner,
        optimizer: torch.optim.Optimizer,
        settings: TrainingSettings,
        warmup: float,
        task: str,
    ) -> None:
        self.learner, self.optimizer, self.settings = learner, optimizer, settings
        self.warmup, self.task = warmup, task
        self.epoch = 0
        self.history: list[dict[str, Any]] = []
        self.best_epoch = 0
        self.best = learner.snapshot()

    def end_epoch(self, loss: float | None, measured: tuple[float, float] | None) -> None:
        """Add an epoch to the history, and keep its values if they are the best so far."""
        validation_loss, top1 = measured if measured is not None else (None, None)
        earlier = [epoch["validation_loss"] for epoch in self.history]
        self.history.append(
            {
                "epoch": self.epoch,
                "loss": loss,
                "validation_loss": validation_loss,
                "validation_top1": top1,
            }
        )
        if validation_loss is None or validation_loss < min(earlier, default=math.inf):
            self.best_epoch, self.best = self.epoch, self.learner.snapshot()

    def patience_is_over(self) -> bool:
        """Whether `patience` epochs have passed since the best one."""
        patience = self.settings.patience
        return patience is not None and self.epoch - self.best_epoch >= patience

    def warm(self, step: int, steps: int | None) -> float:
        """How far training has warmed up at a step of this epoch, up to 1: linear in the steps;
        1 where the number of steps in an epoch is not known."""
        rising = self.warmup * self.settings.epochs * (steps or 0)
        return min(1.0, (self.epoch * (steps or 0) + step + 1) / rising) if rising else 1.0

    def checkpoint(self) -> Checkpoint:
        """The checkpoint of the epochs done so far."""
        return Checkpoint(
            epoch=self.epoch,
            tensors=self.learner.snapshot(),
            optimizer=self.optimizer.state_dict(),
            best_epoch=self.best_epoch,
            best=self.best,
            history=self.history,
        )

    def resume(self, saved: Checkpoint) -> None:
        """Continue from a checkpoint.

        Raises:
            VqzooError: something else learned there.
        """
        shapes = {name: tensor.shape for name, tensor in saved.tensors.items()}
        if shapes != {name: tensor.shape for name, tensor in self.learner.tensors.items()}:
            raise VqzooError(
                "the checkpoint is of another network or of other settings: delete it, or choose "
                "another file"
            )
        self.learner.restore(saved.tensors)
        self.optimizer.load_state_dict(saved.optimizer)
        self.epoch, self.history = saved.epoch, saved.history
        self.best_epoch, self.best = saved.best_epoch, saved.best


def _train_epoch(
    state: _State,
    lessons: Lessons,
    steps: int | None,
    device: torch.device,
    watcher: Watcher,
    seed: int,
) -> float:
    """Train for one pass over the training images.

    Returns:
        The mean loss of the steps, in nats.
    """
    settings, data = state.settings, lessons.data
    losses: list[Tensor] = []
    done = 0
    with watcher.training(f"epoch {state.epoch + 1} of {settings.epochs}") as show:
        for step, (batch, views) in enumerate(lessons.batches(seed, state.epoch)):
            position = state.epoch + (step / steps if steps else 0.0)
            set_rates(state.optimizer, position / settings.epochs, state.warm(step, steps))
            losses.append(_step(state, lessons.teacher, batch, views, device))
            done += len(batch.images)
            show(done, data.images, f"loss {float(losses[-1]):.4f}")
    if not losses:
        raise VqzooError(f"{data.name} holds no training image")
    loss = float(torch.stack(losses).double().mean())
    if not math.isfinite(loss):
        raise VqzooError(
            f"{state.task} diverged in epoch {state.epoch + 1}: the loss is {loss}; lower --lr"
            + ("" if settings.lr is None else f" (it is {settings.lr:g})")
        )
    return loss


def _step(
    state: _State, teacher: nn.Module, batch: Batch, views: Tensor, device: torch.device
) -> Tensor:
    """Train on one batch.

    Args:
        views: the batch's images as the teacher takes them.

    Returns:
        The loss before the step, in nats.
    """
    images = batch.images.to(device)
    labels = None if batch.labels is None else batch.labels.to(device)
    logits = state.learner.network(images)
    if state.settings.alpha == 0 and labels is not None:
        targets = logits.detach()  # the labels decide alone
    else:
        with torch.no_grad():
            targets = teacher(images if views is batch.images else views.to(device))
    loss = loss_of(logits, targets, labels, state.settings)
    state.optimizer.zero_grad()
    loss.backward()
    state.optimizer.step()
    return loss.detach()


def _line(entry: Mapping[str, Any], epochs: int, labelled: bool) -> str:
    text = f"epoch {entry['epoch']} of {epochs}: loss {entry['loss']:.4f}"
    if entry["validation_loss"] is not None:
        measure = "top-1" if labelled else "agreement with the teacher"
        text += f"; held out: loss {entry['validation_loss']:.4f}, "
        text += f"{measure} {entry['validation_top1']:.2f}%"
    return text

"""The training loop of fine-tuning."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vqzoo.data.batches import Batch
from vqzoo.data.seeds import epoch_generator
from vqzoo.data.training_data import TrainingData
from vqzoo.errors import VqzooError
from vqzoo.finetuning.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vqzoo.finetuning.loss import loss_of
from vqzoo.finetuning.optimizer import make_optimizer, set_rates
from vqzoo.finetuning.settings import Finetuning
from vqzoo.finetuning.student import Student, make_student, write_back
from vqzoo.finetuning.validation import Validation
from vqzoo.plugin.code import MethodCode
from vqzoo.plugin.manager import Plugins
from vqzoo.progress import Watcher


@dataclass(frozen=True)
class FinetuningResult:
    """A fine-tuned network.

    Attributes:
        module: the decoded network, in eval mode, on the CPU.
        codes: layer -> code, its floats rounded to their storage dtypes.
        best_epoch: the epoch that the values are from; 0 if none was better than the start.
        history: one entry per epoch, beginning with the start: epoch, loss (mean over the training
            steps, None for the start), validation_loss (nats) and validation_top1 (percent;
            without labels, agreement with the teacher). The last two are None without validation
            images.
    """

    module: nn.Module
    codes: Mapping[str, MethodCode]
    best_epoch: int
    history: list[dict[str, Any]]


def tune(
    model: nn.Module,
    codes: Mapping[str, MethodCode],
    teacher: nn.Module,
    data: TrainingData,
    settings: Finetuning,
    plugins: Plugins,
    watcher: Watcher,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    checkpoint: Path | None = None,
) -> FinetuningResult:
    """Train the floats of `codes`, and what `settings.train` adds, to give the teacher's logits.

    Validation after each epoch measures the network as it would be stored: floats rounded to their
    storage dtypes, weights decoded. The result has the values of the epoch of least validation
    loss, the start included; without validation images, those of the last epoch.

    Args:
        model: the decoded network; it is not changed.
        codes: layer -> code of its weight.
        teacher: gives logits of the same shape; it is run in eval mode.
        data: training images, and perhaps validation images.
        settings: how to train.
        plugins: the loaded plugins.
        watcher: progress callbacks.
        seed: order and augmentation of the training images. The same seed gives the same bytes on
            one machine with one number of threads.
        device: where to train; the CPU by default.
        checkpoint: file written after each epoch; if it exists, training resumes from it.

    Raises:
        VqzooError: there is nothing to train, student and teacher differ in their classes, the
            checkpoint belongs to another network, or the loss is not finite.
    """
    device = device or torch.device("cpu")
    student = make_student(model, codes, plugins, settings.train)
    student.network.to(device)
    teacher = copy.deepcopy(teacher).to(device).eval().requires_grad_(False)
    state = _State(student, model, codes, plugins, settings)
    held_out = data.validation
    validation = Validation(teacher, held_out, settings, device) if held_out else None
    saved = load_checkpoint(checkpoint) if checkpoint is not None else None
    if saved is not None:
        state.resume(saved)
        watcher.say(f"Resuming fine-tuning after epoch {saved.epoch} of {settings.epochs}.")
    elif validation is not None:
        state.end_epoch(None, validation.measure(state.decoded()))
    steps = max(1, math.ceil(data.images / settings.batch_size)) if data.images else None
    while state.epoch < settings.epochs and not state.patience_is_over():
        loss = _train_epoch(state, teacher, data, steps, device, watcher, seed)
        state.epoch += 1
        measured = validation.measure(state.decoded()) if validation else None
        state.end_epoch(loss, measured)
        watcher.say(_line(state.history[-1], settings.epochs, data.labelled))
        if checkpoint is not None:
            save_checkpoint(checkpoint, state.checkpoint())
    student.restore(state.best)
    best_codes = write_back(student, state.plain, codes, plugins)
    return FinetuningResult(state.plain, best_codes, state.best_epoch, state.history)


class _State:
    """The state that changes from epoch to epoch.

    Attributes:
        plain: a copy of the decoded network, for validation and for the result.
    """

    def __init__(
        self,
        student: Student,
        model: nn.Module,
        codes: Mapping[str, MethodCode],
        plugins: Plugins,
        settings: Finetuning,
    ) -> None:
        self.student, self.codes, self.plugins, self.settings = student, codes, plugins, settings
        self.plain = copy.deepcopy(model).cpu().eval().requires_grad_(False)
        self.optimizer = make_optimizer(student, settings)
        self.epoch = 0
        self.history: list[dict[str, Any]] = []
        self.best_epoch = 0
        self.best = student.snapshot()

    def decoded(self) -> nn.Module:
        """The network as it would be stored now, in `plain`."""
        write_back(self.student, self.plain, self.codes, self.plugins)
        return self.plain

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
            self.best_epoch, self.best = self.epoch, self.student.snapshot()

    def patience_is_over(self) -> bool:
        """Whether `patience` epochs have passed since the best one."""
        patience = self.settings.patience
        return patience is not None and self.epoch - self.best_epoch >= patience

    def checkpoint(self) -> Checkpoint:
        """The checkpoint of the epochs done so far."""
        return Checkpoint(
            epoch=self.epoch,
            tensors=self.student.snapshot(),
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
        if shapes != {name: tensor.shape for name, tensor in self.student.tensors.items()}:
            raise VqzooError(
                "the checkpoint is of another network or of other settings: delete it, or choose "
                "another file"
            )
        self.student.restore(saved.tensors)
        self.optimizer.load_state_dict(saved.optimizer)
        self.epoch, self.history = saved.epoch, saved.history
        self.best_epoch, self.best = saved.best_epoch, saved.best


def _train_epoch(
    state: _State,
    teacher: nn.Module,
    data: TrainingData,
    steps: int | None,
    device: torch.device,
    watcher: Watcher,
    seed: int,
) -> float:
    """Train for one pass over the training images.

    Returns:
        The mean loss of the steps, in nats.
    """
    settings = state.settings
    losses: list[Tensor] = []
    done = 0
    with watcher.training(f"epoch {state.epoch + 1} of {settings.epochs}") as show:
        for step, batch in enumerate(data.batches(epoch_generator(seed, state.epoch))):
            position = state.epoch + (step / steps if steps else 0.0)
            set_rates(state.optimizer, position / settings.epochs)
            losses.append(_step(state, teacher, batch, device))
            done += len(batch.images)
            show(done, data.images, f"loss {float(losses[-1]):.4f}")
    if not losses:
        raise VqzooError(f"{data.name} holds no training image")
    loss = float(torch.stack(losses).double().mean())
    if not math.isfinite(loss):
        raise VqzooError(
            f"fine-tuning diverged in epoch {state.epoch + 1}: the loss is {loss}; lower --lr "
            f"(it is {settings.lr:g})"
        )
    return loss


def _step(state: _State, teacher: nn.Module, batch: Batch, device: torch.device) -> Tensor:
    """Train on one batch.

    Returns:
        The loss before the step, in nats.
    """
    images = batch.images.to(device)
    labels = None if batch.labels is None else batch.labels.to(device)
    with torch.no_grad():
        targets = teacher(images)
    logits = state.student.network(images)
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

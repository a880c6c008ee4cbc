"""Train a dense student by a teacher's answers."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vqzoo.data.batches import Batch
from vqzoo.data.training_data import TrainingData
from vqzoo.distillation.settings import Distillation
from vqzoo.distillation.student import DenseStudent, make_dense_optimizer
from vqzoo.finetuning.train import Lessons, train
from vqzoo.progress import Watcher

_WARMUP = 0.05  # of all steps


@dataclass(frozen=True)
class Taught:
    """A trained student.

    Attributes:
        module: the network of the best epoch, in eval mode, on the CPU, without gradients.
        best_epoch: the epoch that the values are from; 0 if none was better than the start.
        history: one entry per epoch; see `FinetuningResult`.
    """

    module: nn.Module
    best_epoch: int
    history: list[dict[str, Any]]


def teach(
    student: nn.Module,
    lessons: Lessons,
    settings: Distillation,
    watcher: Watcher,
    *,
    random: bool,
    seed: int,
    device: torch.device,
    checkpoint: Path | None = None,
) -> Taught:
    """Train all weights of a student to give the teacher's logits on the same views of the images.

    Hinton, Vinyals, Dean 2015, arXiv 1503.02531, for the loss; Beyer et al. 2021, arXiv 2106.05237,
    for a teacher that answers the very crops that the student sees.

    Args:
        student: the network; it is not changed.
        lessons: the teacher and the training images.
        settings: how to train.
        watcher: progress callbacks.
        random: whether the student's weights are random, which decides the default learning rate.
        seed: order and augmentation of the images, and dropout. The same seed gives the same bytes
            on one machine with one number of threads.
        device: where to train.
        checkpoint: file written after each epoch; if it exists, training resumes from it.

    Raises:
        VqzooError: see `train`.
    """
    learner = DenseStudent(student, device)
    rate = settings.initial_rate(random=random)
    optimizer = make_dense_optimizer(
        learner.network, settings.optimizer, rate, settings.weight_decay
    )
    views = None if lessons.views is None else _without_lone_images(lessons.views)
    lessons = Lessons(lessons.teacher, _without_lone_images(lessons.data), views)
    trained = train(
        learner,
        optimizer,
        lessons,
        settings.model_copy(update={"lr": rate}),
        watcher,
        seed=seed,
        device=device,
        checkpoint=checkpoint,
        warmup=_WARMUP,
        task="distillation",
    )
    learner.restore(trained.best)
    return Taught(learner.stored(), trained.best_epoch, trained.history)


def _without_lone_images(data: TrainingData) -> TrainingData:
    """The images without batches of a single one, whose variance batch norms cannot take."""

    def batches(generator: torch.Generator) -> Iterator[Batch]:
        return (batch for batch in data.batches(generator) if len(batch.images) > 1)

    return replace(data, batches=batches)

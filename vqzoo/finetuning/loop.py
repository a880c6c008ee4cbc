"""Fine-tuning: the floats of a compressed network are trained, its codes stay."""

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vqzoo.data.training_data import TrainingData
from vqzoo.finetuning.optimizer import make_optimizer
from vqzoo.finetuning.settings import Finetuning
from vqzoo.finetuning.student import Student, make_student, write_back
from vqzoo.finetuning.train import Lessons, train
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
    plain = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    trained = train(
        _CodedLearner(student, plain, codes, plugins),
        make_optimizer(student, settings),
        Lessons(teacher, data),
        settings,
        watcher,
        seed=seed,
        device=device,
        checkpoint=checkpoint,
    )
    student.restore(trained.best)
    best_codes = write_back(student, plain, codes, plugins)
    return FinetuningResult(plain, best_codes, trained.best_epoch, trained.history)


@dataclass(frozen=True)
class _CodedLearner:
    """A compressed network that runs from its codes; `plain` is the same network decoded."""

    student: Student
    plain: nn.Module
    codes: Mapping[str, MethodCode]
    plugins: Plugins

    @property
    def network(self) -> nn.Module:
        return self.student.network

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return self.student.tensors

    def epoch(self, seed: int, number: int) -> AbstractContextManager[None]:
        return nullcontext()  # it is trained in eval mode, where nothing is drawn

    def snapshot(self) -> dict[str, Tensor]:
        return self.student.snapshot()

    def restore(self, values: Mapping[str, Tensor]) -> None:
        self.student.restore(values)

    def stored(self) -> nn.Module:
        write_back(self.student, self.plain, self.codes, self.plugins)
        return self.plain

"""`vqzoo.distill`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vqzoo.data.class_map import ClassMap
from vqzoo.data.model_input import input_of
from vqzoo.data.sources import ReadOptions
from vqzoo.distillation.settings import Distillation
from vqzoo.distillation.teach import teach
from vqzoo.errors import UsageError
from vqzoo.finetuning.finetune import validated_settings
from vqzoo.finetuning.images import open_images, open_or_convert
from vqzoo.finetuning.train import Lessons
from vqzoo.progress import SilentWatcher, Watcher
from vqzoo.wrappers import as_network


def distill(
    student: nn.Module,
    data: str | Iterable[Any],
    *,
    teacher: nn.Module,
    validation: Iterable[Any] | None = None,
    random: bool = False,
    seed: int = 0,
    device: str | torch.device = "cpu",
    class_map: ClassMap | None = None,
    skip_unreadable: bool = False,
    checkpoint: str | Path | None = None,
    progress: Watcher | None = None,
    **settings: Any,
) -> nn.Module:
    """Train a small dense network to give the answers of a large one.

    All weights are trained, in training mode. The result has the values of the epoch of least
    validation loss, the start included; without validation images, those after the last epoch.

    Args:
        student: the small network; it is not changed.
        data: preprocessed batches that both networks take, each a tensor of images (B, C, H, W) or
            a pair of images and labels (B,), for instance from a `torch.utils.data.DataLoader`; or
            text as for `vqzoo distill --train-data`, which preprocesses the same views of the
            images for each network.
        teacher: the large network, with the student's classes; it is run in eval mode.
        validation: batches held out of training. For data given as text, a part is held out.
        random: whether the student's weights are random: the default learning rate is then ten
            times as high.
        seed: order and augmentation of data given as text, and dropout. The same seed gives the
            same values on one machine with one number of threads.
        device: where to train.
        class_map: the class of each folder of "imagefolder:PATH", as for `vqzoo.evaluate`.
        skip_unreadable: leave out images of data given as text that cannot be read, with a warning,
            instead of failing.
        checkpoint: file written after each epoch; if it exists, training resumes from it.
        progress: progress callbacks.
        **settings: `epochs` and the other fields of `Distillation`.

    Returns:
        A trained copy of the student, in eval mode, on the CPU, without gradients.

    Raises:
        UsageError: student or teacher is not a network, a setting is unknown or out of bounds, or
            the text of `data` is not valid.
        VqzooError: student and teacher differ in their classes, or training diverged.

    Examples:
        >>> small = vqzoo.distill(student, loader, teacher=model, epochs=30)
    """
    student, teacher = as_network(student), as_network(teacher)
    chosen = validated_settings(Distillation, settings, "distillation")
    read = ReadOptions(class_map, skip_unreadable)
    if isinstance(data, str) and validation is None:
        lessons = open_lessons(data, student, teacher, chosen, seed, read)
    else:
        lessons = Lessons(teacher, open_or_convert(data, validation, student, chosen, seed, read))
    taught = teach(
        student,
        lessons,
        chosen,
        progress or SilentWatcher(),
        random=random,
        seed=seed,
        device=torch.device(device),
        checkpoint=None if checkpoint is None else Path(checkpoint),
    )
    return taught.module


def open_lessons(
    spec: str,
    student: nn.Module,
    teacher: nn.Module,
    settings: Distillation,
    seed: int,
    read: ReadOptions,
) -> Lessons:
    """Training images for student and teacher: the same views, each preprocessed for its network.

    Args:
        spec: see `open_training_data`.
        student: a network whose preprocessing is known.
        teacher: another one, with the same classes.
        settings: batch size, augmentation and number of images.
        seed: see `open_training_data`.
        read: the class map, and what happens with images that cannot be read.

    Raises:
        UsageError: see `open_training_data`; or only labels are to be learned from, and there are
            none.
        VqzooError: see `open_training_data`.
    """
    data = open_images(spec, student, settings, seed, read)
    if settings.label_weight == 1 and not data.labelled:
        raise UsageError(f"{data.name} has no labels to learn from: give a label weight below 1")
    alike = input_of(student).config == input_of(teacher).config
    views = None if alike else open_images(spec, teacher, settings, seed, read)
    return Lessons(teacher, data, views)

"""`vqzoo distill`: train a small dense network by a large one, into a folder of timm's."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vqzoo.artifact.encode import tensors_sha256
from vqzoo.artifact.files import write_text
from vqzoo.artifact.folder import check_target
from vqzoo.artifact.lock import folder_lock
from vqzoo.artifact.schema import CARD_FILE, CONFIG_FILE
from vqzoo.artifact.writer import dense_bytes
from vqzoo.data.evaluation_data import Data, open_data
from vqzoo.data.sources import read_options
from vqzoo.distillation.distill import open_lessons
from vqzoo.distillation.teach import Taught, teach
from vqzoo.errors import UsageError
from vqzoo.evaluation.accuracy import evaluate
from vqzoo.finetuning.train import Lessons
from vqzoo.models.dense import find_model
from vqzoo.models.embedded import default_data
from vqzoo.models.sources import LOCAL_DIR
from vqzoo.network.by_name import NamedNetwork, names_artifact, open_network
from vqzoo.network.export.dense import write_dense
from vqzoo.network.proof import prove
from vqzoo.plugin.files import plugin_files
from vqzoo.plugin.manager import installed_plugins
from vqzoo.progress import Watcher
from vqzoo.report.record import versions
from vqzoo.report.steps import EpochRecord
from vqzoo.runs.distill.card import distillation_card
from vqzoo.runs.distill.record import (
    DistillationRecord,
    NetworkRecord,
    TaughtAccuracy,
    taught_accuracy,
    write_distillation_record,
)
from vqzoo.runs.distill.request import (
    DistillRequest,
    distill_command,
    distill_digest,
    public_name,
)
from vqzoo.runs.distill.student import Student, open_student
from vqzoo.runs.finish import unreadable_images
from vqzoo.runs.prepare import parse_device
from vqzoo.runs.workspace import (
    Workspace,
    abandon_if_empty,
    default_folder,
    finetuning_checkpoint,
    finish_workspace,
    open_workspace,
)


@dataclass(frozen=True)
class FinishedDistillation:
    """The student's folder and its record."""

    folder: Path
    record: DistillationRecord


@dataclass(frozen=True)
class _Prepared:
    """A distillation that can start.

    Attributes:
        teacher: the teacher.
        teacher_sha256: hash of its weights.
        student: the student before it learns.
        lessons: training images for both.
        measured: images to measure on, for the teacher and for the student; None without any.
        device: where to compute.
        digest: hash of the request.
        target: the student's folder.
    """

    teacher: NamedNetwork
    teacher_sha256: str
    student: Student
    lessons: Lessons
    measured: tuple[Data, Data] | None
    device: torch.device
    digest: str
    target: Path


def distill_network(
    request: DistillRequest, watcher: Watcher, *, out: Path | None = None, force: bool = False
) -> FinishedDistillation:
    """Train a student by its teacher's answers, and measure it read back from disk.

    An interrupted call leaves `<out>.partial`; the same call resumes it after the last complete
    epoch. The folder holds config.json and model.safetensors, which timm opens as `local-dir:`,
    README.md and distillation.json.

    Args:
        request: student, teacher, and how to train.
        watcher: receives progress.
        out: the new folder; by default named after student and request.
        force: replace a finished folder.

    Raises:
        UsageError: the request names something that does not exist or does not fit; nothing was
            written.
        VqzooError: weights or data are not available, or training failed.
    """
    with plugin_files(request.plugins):
        prepared = _prepare(request, watcher, out)
        with folder_lock(prepared.target):
            check_target(prepared.target, prepared.digest, force=force)
            return _execute(request, prepared, watcher)


def _prepare(request: DistillRequest, watcher: Watcher, out: Path | None) -> _Prepared:
    device = parse_device(request.device)
    teacher = _open_teacher(request, watcher)
    student = open_student(request, teacher, watcher)
    spec = request.settings.data or default_data(teacher.name)
    if spec is None:
        raise UsageError(
            f"vqzoo has no training images for {teacher.label}: give --train-data imagefolder:PATH"
        )
    with watcher.phase("opening the images"):
        read = read_options(spec, request.class_map, request.skip_unreadable)
        lessons = open_lessons(
            spec, student.module, teacher.module, request.settings, request.seed, read
        )
        if lessons.data.labels:
            watcher.say(f"{lessons.data.name}: {lessons.data.labels}")
        measured = _open_measured(request, teacher, student)
    teacher_sha256 = tensors_sha256(teacher.module.state_dict())
    installed = {s.origin.distribution: s.origin.version for s in installed_plugins().statuses}
    digest = distill_digest(request, (student.sha256, teacher_sha256), student.config, installed)
    target = out or default_folder(public_name(request.student), "distilled", digest)
    return _Prepared(teacher, teacher_sha256, student, lessons, measured, device, digest, target)


def _open_teacher(request: DistillRequest, watcher: Watcher) -> NamedNetwork:
    if names_artifact(request.teacher) and (request.teacher_checkpoint or request.teacher_args):
        raise UsageError(
            f"{request.teacher} is an artifact, which has its weights and its architecture: leave "
            "out --teacher-checkpoint and --teacher-arg"
        )
    return open_network(
        request.teacher,
        watcher,
        plugins=request.plugins,
        checkpoint=request.teacher_checkpoint,
        model_args=request.teacher_args,
    )


def _open_measured(
    request: DistillRequest, teacher: NamedNetwork, student: Student
) -> tuple[Data, Data] | None:
    spec = request.data or default_data(teacher.name)
    if spec is None:
        return None
    read = read_options(spec, request.class_map, request.skip_unreadable)
    for_teacher, for_student = (
        open_data(spec, module, images=request.measured_images, read=read)
        for module in (teacher.module, student.module)
    )
    if not for_teacher.labelled:
        raise UsageError(
            f"{for_teacher.name} has no labels to measure by: {for_teacher.unlabelled}"
        )
    return for_teacher, for_student


def _execute(
    request: DistillRequest, prepared: _Prepared, watcher: Watcher
) -> FinishedDistillation:
    work = open_workspace(prepared.target, prepared.digest)
    started = time.perf_counter()
    try:
        taught = teach(
            prepared.student.module,
            prepared.lessons,
            request.settings,
            watcher,
            random=prepared.student.weights == "random",
            seed=request.seed,
            device=prepared.device,
            checkpoint=finetuning_checkpoint(work),
        )
    except BaseException:
        abandon_if_empty(work)
        raise
    seconds = time.perf_counter() - started
    reread = _write_network(prepared.student, taught, work, watcher)
    accuracy = _measure(prepared, reread, watcher)
    record = _record(request, prepared, taught, accuracy, seconds)
    write_distillation_record(record, work.partial)
    write_text(work.partial / CARD_FILE, distillation_card(record, prepared.student.config))
    finish_workspace(work)
    return FinishedDistillation(work.target, record)


def _write_network(
    student: Student, taught: Taught, work: Workspace, watcher: Watcher
) -> nn.Module:
    """Write config.json and model.safetensors, and read them back.

    Raises:
        VqzooError: the network that timm opens is another one.
    """
    config = json.dumps(student.config, indent=2)
    write_text(work.partial / CONFIG_FILE, config + "\n")
    write_dense(taught.module, work.partial)
    reread = find_model(f"{LOCAL_DIR}:{work.partial}", watcher).module
    prove(taught.module, reread)
    return reread


def _measure(prepared: _Prepared, student: nn.Module, watcher: Watcher) -> TaughtAccuracy | None:
    if prepared.measured is None:
        return None
    device = prepared.device
    for_teacher, for_student = prepared.measured
    with watcher.images("evaluating the teacher") as steps:
        before = evaluate(prepared.teacher.module, for_teacher, device=device, progress=steps)
    with watcher.images("evaluating the student") as steps:
        after = evaluate(student, for_student, device=device, progress=steps)
    return taught_accuracy(before, after)


def _record(
    request: DistillRequest,
    prepared: _Prepared,
    taught: Taught,
    accuracy: TaughtAccuracy | None,
    seconds: float,
) -> DistillationRecord:
    teacher, student, settings = prepared.teacher, prepared.student, request.settings
    data = prepared.lessons.data
    lost = unreadable_images(data, prepared.measured[0] if prepared.measured else None)
    return DistillationRecord(
        student=_network_record(student.name, student.weights, student.sha256, taught.module),
        teacher=_network_record(
            teacher.name, teacher.weights, prepared.teacher_sha256, teacher.module
        ),
        data=data.name,
        images=data.images,
        labelled=data.labelled,
        epochs=settings.epochs,
        label_weight=settings.label_weight if data.labelled else 0.0,
        temperature=settings.temperature,
        optimizer=settings.optimizer,
        lr=settings.initial_rate(random=student.weights == "random"),
        weight_decay=settings.weight_decay,
        batch_size=settings.batch_size,
        patience=settings.patience,
        augment=settings.augment,
        seed=request.seed,
        best_epoch=taught.best_epoch,
        history=tuple(EpochRecord(**epoch) for epoch in taught.history),
        accuracy=accuracy,
        seconds=seconds,
        command=distill_command(request),
        versions=versions(installed_plugins()),
        asked_sha256=prepared.digest,
        **({"unreadable": lost} if lost else {}),
    )


def _network_record(name: str, weights: str, sha256: str, module: nn.Module) -> NetworkRecord:
    return NetworkRecord(
        model=name,
        weights=weights,
        weights_sha256=sha256,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        bytes=dense_bytes(module),
    )

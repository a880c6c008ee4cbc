"""distillation.json: the record of `vqzoo distill`."""

import json
from pathlib import Path

from vqzoo.artifact.files import write_text
from vqzoo.evaluation.accuracy import Evaluation, paired_difference
from vqzoo.report.block import Block, Count
from vqzoo.report.measured import Difference, Scores
from vqzoo.report.steps import EpochRecord

RECORD_FILE = "distillation.json"


class NetworkRecord(Block):
    """The teacher, or the student."""

    model: str
    """Its full timm name."""
    weights: str
    """Where its weights came from; the student's at the start."""
    weights_sha256: str
    """Hash of these weights."""
    parameters: Count
    """Number of parameters."""
    bytes: Count
    """Size of the safetensors file of its whole state dict in float32."""


class TaughtAccuracy(Block):
    """Accuracy of the teacher, and of the student read back from disk."""

    data: str
    """The data set, without local folders."""
    images: Count
    """Number of images."""
    teacher: Scores
    """The teacher."""
    student: Scores
    """The student."""
    difference: Difference
    """The student minus the teacher."""
    labels: str | None = None
    """How class folders became labels; absent for other data."""


class DistillationRecord(Block):
    """What a student learned, from whom, and how."""

    student: NetworkRecord
    """The student."""
    teacher: NetworkRecord
    """The teacher."""
    data: str
    """The training images, without local folders."""
    images: Count | None
    """Number of training images; null if unknown."""
    labelled: bool
    """Whether they have labels."""
    epochs: Count
    """Epochs at most."""
    label_weight: float
    """Weight of the labels' part of the loss; 0 without labels."""
    temperature: float
    """Temperature of the softened outputs."""
    optimizer: str
    """`adam` or `sgd`."""
    lr: float
    """Initial learning rate."""
    weight_decay: float
    """Decay of matrices and convolutions."""
    batch_size: Count
    """Images per step."""
    patience: Count | None
    """Epochs without improvement before training stops; null for no limit."""
    augment: bool
    """Whether training images were augmented."""
    seed: Count
    """Seed of random weights, order, augmentation and dropout."""
    best_epoch: Count
    """The epoch whose values were kept; 0 for the values at the start."""
    history: tuple[EpochRecord, ...]
    """All epochs, starting with epoch 0."""
    accuracy: TaughtAccuracy | None
    """Accuracy on other images; null without any."""
    seconds: float
    """Time that training took in the last call."""
    command: str
    """A command that makes the student again, without local paths."""
    versions: dict[str, str]
    """Versions of Python, of the main packages and of plugins."""
    asked_sha256: str
    """Hash of the request."""
    unreadable: dict[str, tuple[str, ...]] | None = None
    """Data set to the names of images that were left out; absent where there are none."""

    def to_json(self) -> str:
        """The record as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)


def taught_accuracy(teacher: Evaluation, student: Evaluation) -> TaughtAccuracy:
    """Accuracy of both with the paired difference; one image gives no interval."""
    paired = paired_difference(teacher, student) if teacher.images > 1 else None
    return TaughtAccuracy(
        data=teacher.data,
        images=teacher.images,
        teacher=Scores(top1=teacher.top1, top5=teacher.top5),
        student=Scores(top1=student.top1, top5=student.top5),
        difference=Difference(
            top1=student.top1 - teacher.top1, ci95=paired.half_width if paired else None
        ),
        **({"labels": teacher.labels} if teacher.labels else {}),
    )


def write_distillation_record(record: DistillationRecord, folder: Path) -> None:
    """Write distillation.json."""
    write_text(folder / RECORD_FILE, record.to_json() + "\n")

"""The loss of distillation."""

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from vqzoo.errors import VqzooError


class LossSettings(Protocol):
    """The settings of the loss."""

    @property
    def temperature(self) -> float:
        """T of the softened outputs."""

    @property
    def alpha(self) -> float:
        """Weight of the teacher's part of the loss."""


def distillation_loss(
    student: Tensor, teacher: Tensor, labels: Tensor | None, *, temperature: float, alpha: float
) -> Tensor:
    """alpha · T² · KL(teacher/T || student/T) + (1 - alpha) · cross-entropy.

    Hinton, Vinyals, Dean 2015, arXiv 1503.02531, section 2: the factor T² keeps the relative size
    of the two terms' gradients when the temperature T changes.

    Args:
        student: logits, (B, classes).
        teacher: logits, (B, classes); they get no gradient.
        labels: int64, (B,); without labels, the loss is the first term with alpha = 1.
        temperature: T > 0.
        alpha: between 0 and 1.

    Returns:
        The mean over the batch, in nats, a scalar tensor.
    """
    soft = temperature**2 * F.kl_div(
        (student / temperature).log_softmax(1),
        (teacher.detach() / temperature).log_softmax(1),
        reduction="batchmean",
        log_target=True,
    )
    if labels is None:
        return soft
    return alpha * soft + (1 - alpha) * F.cross_entropy(student, labels)


def loss_of(
    logits: Tensor, targets: Tensor, labels: Tensor | None, settings: LossSettings
) -> Tensor:
    """`distillation_loss` of the student's logits and the teacher's, with these settings.

    Raises:
        VqzooError: student and teacher have different numbers of classes.
    """
    if logits.shape != targets.shape:
        raise VqzooError(
            f"the teacher has {targets.shape[1]} classes, the student {logits.shape[1]}: choose a "
            "teacher with the student's classes"
        )
    return distillation_loss(
        logits, targets, labels, temperature=settings.temperature, alpha=settings.alpha
    )

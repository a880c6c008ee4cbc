"""What the student is to make small."""

import torch.nn.functional as F
from torch import Tensor

from vqzoo.errors import VqzooError
from vqzoo.finetuning.settings import Finetuning


def distillation_loss(
    student: Tensor, teacher: Tensor, labels: Tensor | None, *, temperature: float, alpha: float
) -> Tensor:
    """alpha · T² · KL(teacher/T || student/T) + (1 - alpha) · cross-entropy.

    Hinton, Vinyals, Dean 2015, arXiv 1503.02531, section 2: T² keeps the gradients of the two
    parts of like size when the temperature T changes.

    Args:
        student: logits, (B, classes).
        teacher: logits, (B, classes), which take no gradient.
        labels: int64, (B,); where there are none, alpha is 1.
        temperature: T > 0.
        alpha: between 0 and 1.

    Returns:
        The mean over the batch, in nats.
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


def loss_of(logits: Tensor, answers: Tensor, labels: Tensor | None, settings: Finetuning) -> Tensor:
    """`distillation_loss` as the settings have it.

    Raises:
        VqzooError: student and teacher have not the same classes.
    """
    if logits.shape != answers.shape:
        raise VqzooError(
            f"the teacher has {answers.shape[1]} classes, the student {logits.shape[1]}: choose a "
            "teacher of the same classes"
        )
    return distillation_loss(
        logits, answers, labels, temperature=settings.temperature, alpha=settings.alpha
    )

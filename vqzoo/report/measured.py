"""The parts of a record that hold measurements on images."""

import math

from vqzoo.evaluation.accuracy import Agreement, Evaluation, paired_difference
from vqzoo.report.block import Block, Count


class Scores(Block):
    """Accuracy of one network."""

    top1: float
    """Top-1 accuracy in percent."""
    top5: float | None
    """Top-5 accuracy in percent; null with fewer than five classes."""


class Difference(Block):
    """A paired difference over the same images."""

    top1: float
    """Top-1 of the compressed network minus top-1 of the dense one, in percentage points."""
    ci95: float | None
    """Half-width of its 95% confidence interval in points; null with a single image."""


class AccuracyRecord(Block):
    """Accuracy of the dense network and of the artifact read back from disk."""

    data: str
    """The data set, without local folders."""
    images: Count
    """Number of images."""
    dense: Scores
    """The dense network."""
    compressed: Scores
    """The artifact, read back from disk."""
    difference: Difference
    """Compressed minus dense."""
    labels: str | None = None
    """How class folders became labels; absent for other data."""


class AgreementRecord(Block):
    """Agreement of the artifact with the dense network on images without labels."""

    data: str
    """The data set, without local folders."""
    images: Count
    """Number of images."""
    top1: float
    """Percentage of images that both networks put in the same class."""
    kl: float | None
    """Mean KL(dense ‖ compressed) in nats; null where logits were not finite."""
    logit_change: float | None = None
    """Half the squared change of the centred logits, mean over the images: what a budget's
    `predicted_loss` predicts. Null where logits were not finite; absent in older records."""


def accuracy_record(dense: Evaluation, compressed: Evaluation) -> AccuracyRecord:
    """Accuracy before and after with the paired difference; one image gives no interval."""
    paired = paired_difference(dense, compressed) if dense.images > 1 else None
    return AccuracyRecord(
        data=dense.data,
        images=dense.images,
        dense=Scores(top1=dense.top1, top5=dense.top5),
        compressed=Scores(top1=compressed.top1, top5=compressed.top5),
        difference=Difference(
            top1=compressed.top1 - dense.top1, ci95=paired.half_width if paired else None
        ),
        **({"labels": dense.labels} if dense.labels else {}),
    )


def agreement_record(agreement: Agreement) -> AgreementRecord:
    """Agreement with the dense network; a divergence that is not finite becomes None."""
    return AgreementRecord(
        data=agreement.data,
        images=agreement.images,
        top1=agreement.top1,
        kl=agreement.kl if math.isfinite(agreement.kl) else None,
        logit_change=agreement.logit_change if math.isfinite(agreement.logit_change) else None,
    )

"""Measures a network on images before and after compression."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vqzoo.data.evaluation_data import Data
from vqzoo.evaluation.accuracy import Evaluation, agreement, evaluate
from vqzoo.progress import Watcher
from vqzoo.report.measured import (
    AccuracyRecord,
    AgreementRecord,
    accuracy_record,
    agreement_record,
)


@dataclass(frozen=True)
class Baseline:
    """The dense network, measured before anything is compressed.

    Attributes:
        network: the dense network.
        data: the images to measure on, None for none.
        device: where to evaluate.
        evaluation: its accuracy; None without labelled images.
        seconds: time that the evaluation took.
        answers: its logits for the images, (images, classes), where they are known already.
    """

    network: nn.Module
    data: Data | None
    device: torch.device
    evaluation: Evaluation | None
    seconds: float
    answers: Tensor | None = None


@dataclass(frozen=True)
class BeforeAfter:
    """Accuracy before and after; agreement where images have no labels, or as well; or neither.

    Attributes:
        seconds: time that all evaluations took, the baseline's included.
    """

    accuracy: AccuracyRecord | None
    agreement: AgreementRecord | None
    seconds: float


def measure_baseline(
    network: nn.Module, data: Data | None, device: torch.device, watcher: Watcher
) -> Baseline:
    """Measure the accuracy of the dense network, if there are labelled images."""
    start = time.perf_counter()
    evaluation = _accuracy(network, data, device, watcher, "dense")
    return Baseline(network, data, device, evaluation, time.perf_counter() - start)


def measure_against(
    baseline: Baseline, compressed: nn.Module, watcher: Watcher, *, agree: bool = False
) -> BeforeAfter:
    """Measure a compressed network as its baseline was measured, or its agreement with it.

    Args:
        baseline: the dense network and the images.
        compressed: the network to compare with it.
        watcher: receives progress.
        agree: measure agreement on labelled images, too.
    """
    start, data, device = time.perf_counter(), baseline.data, baseline.device
    evaluation = _accuracy(compressed, data, device, watcher, "compressed")
    accuracy = alike = None
    if baseline.evaluation is not None and evaluation is not None:
        accuracy = accuracy_record(baseline.evaluation, evaluation)
    if data is not None and (agree or accuracy is None):
        with watcher.images("comparing with the dense model") as steps:
            alike = agreement_record(
                agreement(
                    baseline.network,
                    compressed,
                    data,
                    device=device,
                    progress=steps,
                    answers=baseline.answers,
                )
            )
    return BeforeAfter(accuracy, alike, baseline.seconds + time.perf_counter() - start)


def _accuracy(
    network: nn.Module, data: Data | None, device: torch.device, watcher: Watcher, which: str
) -> Evaluation | None:
    if data is None or not data.labelled:
        return None
    with watcher.images(f"evaluating the {which} model") as steps:
        return evaluate(network, data, device=device, progress=steps)

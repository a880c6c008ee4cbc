"""Judge compressed networks by images that took no part in calibration."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqzoo.data.batches import Data
from vqzoo.evaluation.accuracy import evaluating
from vqzoo.evaluation.answers import logits_of
from vqzoo.evaluation.expected_drop import expected_drop, fitted_sharpness
from vqzoo.evaluation.statistics import paired_points
from vqzoo.progress import Steps, Watcher
from vqzoo.report.budget import HeldOutRecord


class HeldOut:
    """The images, and the dense network's answers to them.

    Attributes:
        data: the images.
    """

    def __init__(
        self, dense: nn.Module, data: Data, device: torch.device, watcher: Watcher
    ) -> None:
        self.data = data
        self._device = device
        self._watcher = watcher
        self._dense, self._labels = self._answers(dense, "answers of the dense model")
        self._sharpness = (
            None if self._labels is None else fitted_sharpness(self._dense, self._labels)
        )

    def judge(self, network: nn.Module) -> HeldOutRecord:
        """How far a network's answers are from the dense network's."""
        answers, _ = self._answers(network, "judging on held-out images")
        kl = F.kl_div(answers, self._dense, reduction="batchmean", log_target=True)
        drop = ci95 = expected = None
        if self._labels is not None and self._sharpness is not None:
            before, after = (self._correct(a, self._labels) for a in (self._dense, answers))
            paired = paired_points(after, before)
            drop, ci95 = paired.points, paired.half_width
            expected = expected_drop(self._dense, answers, self._sharpness)
        return HeldOutRecord(
            data=self.data.name,
            images=len(answers),
            kl=max(float(kl), 0.0) if math.isfinite(kl) else None,
            drop=drop,
            ci95=ci95,
            expected_drop=None if expected is None else expected.points,
            drop_bound=None if expected is None else expected.bound,
        )

    def _answers(self, network: nn.Module, text: str) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities (images, classes) float64, and labels (images,) if there are any."""
        answers: list[Tensor] = []
        labels: list[Tensor] = []
        with self._watcher.images(text) as steps, evaluating(network, self._device):
            for batch in self.data:
                logits = logits_of(network, batch.images.to(self._device))
                answers.append(logits.double().log_softmax(1).cpu())
                if self.data.labelled and batch.labels is not None:
                    labels.append(batch.labels)
                _count(steps, answers, self.data)
        return torch.cat(answers), torch.cat(labels) if labels else None

    @staticmethod
    def _correct(answers: Tensor, labels: Tensor) -> Tensor:
        """1 where the label is the likeliest class, (images,) float64."""
        return (answers.argmax(1) == labels).double() * answers.isfinite().all(1)


def _count(steps: Steps, answers: list[Tensor], data: Data) -> None:
    steps(sum(map(len, answers)), data.images)

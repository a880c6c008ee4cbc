"""The loss of top-1 that is to be expected of a network whose answers are known.

A count of right answers has the noise of labels: an image on which two networks disagree adds 1, 0
or -1 to the difference. The dense network's probabilities say what it adds on average. Where the
compressed network has learned nothing from labels, its answer says nothing new about the label, and
the dense network's p(y | x), its temperature fitted, is the best guess: the image adds
p(dense answer) - p(other answer), which is small where the answers are nearly tied, and they mostly
are where compression changes them. Where the other network did learn from labels, other images'
labels, what it learned does not count in its favour, and the loss is overestimated.
"""

import math
from dataclasses import dataclass

from torch import Tensor

Z95_ONE_SIDED = 1.6448536269514722  # the 95% quantile of the normal distribution
_SHARPEST = 32.0  # inverse temperature of a network that is right on all images
_HALVINGS = 30


@dataclass(frozen=True)
class Sharpness:
    """An inverse temperature, fitted to labels.

    Attributes:
        value: of the best fit.
        error: its standard error, at most the value.
    """

    value: float
    error: float


@dataclass(frozen=True)
class ExpectedDrop:
    """A loss of top-1.

    Attributes:
        points: the expected loss, in percentage points.
        bound: with 95% confidence the loss is at most this, in percentage points.
    """

    points: float
    bound: float


def fitted_sharpness(log_probabilities: Tensor, labels: Tensor) -> Sharpness:
    """The inverse temperature with which probabilities fit labels best (Guo et al. 2017, arXiv
    1706.04599): the least negative log-likelihood, from 1/32 to 32.

    Args:
        log_probabilities: (n, classes) float64; images with others than finite ones do not count.
        labels: (n,) int64; those that are no class do not count.
    """
    usable = log_probabilities.isfinite().all(1)
    usable &= (labels >= 0) & (labels < log_probabilities.shape[1])
    logs, labels = log_probabilities[usable], labels[usable]
    if not len(logs):
        return Sharpness(1.0, 0.0)
    right = logs.gather(1, labels[:, None])[:, 0].mean()
    low, high = -math.log(_SHARPEST), math.log(_SHARPEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _moments(logs, math.exp(middle))[0].mean() < right:  # a convex function still falls
            low = middle
        else:
            high = middle
    value = math.exp((low + high) / 2)
    information = float(_moments(logs, value)[1].sum())
    return Sharpness(value, 1 / math.sqrt(max(information, value**-2)))


def expected_drop(dense: Tensor, answers: Tensor, sharpness: Sharpness) -> ExpectedDrop:
    """The loss of top-1 of a network that saw no label of these images.

    The bound allows for the errors of a mean over images and of the temperature.

    Args:
        dense: log-probabilities of the dense network, (n, classes) float64.
        answers: those of the other network for the same images; one that is not finite is wrong.
        sharpness: of the dense network.

    Raises:
        ValueError: n is less than 2.
    """
    if len(dense) < 2:
        raise ValueError("an expected loss needs at least two images")
    probabilities = (sharpness.value * dense).softmax(1).nan_to_num(0.0)
    # What the probabilities change by with the inverse temperature.
    means = _moments(dense, sharpness.value)[0][:, None]
    slopes = (probabilities * (dense - means)).nan_to_num(0.0)
    before, after = (network.argmax(1, keepdim=True) for network in (dense, answers))
    finite = answers.isfinite().all(1)

    def change(values: Tensor) -> Tensor:
        return values.gather(1, before)[:, 0] - values.gather(1, after)[:, 0].where(finite, 0.0)

    lost = change(probabilities)
    of_images = float(lost.std()) / math.sqrt(len(lost))
    of_sharpness = float(change(slopes).mean()) * sharpness.error
    points = 100 * float(lost.mean())
    return ExpectedDrop(points, points + 100 * Z95_ONE_SIDED * math.hypot(of_images, of_sharpness))


def _moments(logs: Tensor, sharpness: float) -> tuple[Tensor, Tensor]:
    """Mean and variance of each image's log-probabilities at a temperature, (n,)."""
    probabilities = (sharpness * logs).softmax(1)
    mean = (probabilities * logs).sum(1)
    return mean, (probabilities * (logs - mean[:, None]).square()).sum(1)

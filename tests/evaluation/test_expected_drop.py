"""The expected loss of top-1, where the true probabilities of labels are known."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from vqzoo.evaluation.expected_drop import Sharpness, expected_drop, fitted_sharpness
from vqzoo.evaluation.statistics import paired_points

SAMPLE, SAMPLES = 1000, 200


def right(answers: Tensor, labels: Tensor) -> Tensor:
    return (answers.argmax(1) == labels).double()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_it_is_that_of_the_true_probabilities_and_far_steadier_than_counts(
    temperature: float,
) -> None:
    """Labels are drawn from known probabilities; the dense network is too sure of itself, just
    sure enough, or too modest, and the other network's logits have noise."""
    generator = torch.Generator().manual_seed(0)
    shape = SAMPLE * SAMPLES, 10
    logits = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    noise = 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)
    true = logits.softmax(1)
    labels = torch.multinomial(true, 1, generator=generator)[:, 0]
    dense = (logits / temperature).log_softmax(1)
    other = ((logits + noise) / temperature).log_softmax(1)
    lost = true.gather(1, dense.argmax(1)[:, None]) - true.gather(1, other.argmax(1)[:, None])
    real = 100 * float(lost.mean())
    expected, bounds, counted, sharpnesses = [], [], [], []
    for start in range(0, len(labels), SAMPLE):
        part = slice(start, start + SAMPLE)
        sharpness = fitted_sharpness(dense[part], labels[part])
        sharpnesses.append(sharpness)
        drop = expected_drop(dense[part], other[part], sharpness)
        expected.append(drop.points)
        bounds.append(drop.bound)
        after, before = right(other[part], labels[part]), right(dense[part], labels[part])
        counted.append(paired_points(after, before).points)
    values = [sharpness.value for sharpness in sharpnesses]
    assert np.mean(values) == pytest.approx(temperature, rel=0.03)
    assert sharpnesses[0].error == pytest.approx(np.std(values), rel=0.25)
    assert np.mean(expected) == pytest.approx(real, rel=0.05)
    assert np.std(expected) < 0.35 * np.std(counted)
    # Of 200 samples, 95% give or take three standard errors.
    assert np.mean(np.array(bounds) >= real) > 0.9


def test_networks_of_equal_answers_lose_nothing() -> None:
    logs = torch.randn(20, 5, generator=torch.Generator().manual_seed(1)).double().log_softmax(1)
    drop = expected_drop(logs, 2 * logs, Sharpness(1.0, 0.1))
    assert (drop.points, drop.bound) == (0, 0)


def test_answers_that_are_not_finite_are_wrong() -> None:
    logs = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64).log()
    broken = logs.clone()
    broken[1] = math.nan
    assert expected_drop(logs, broken, Sharpness(1.0, 0.1)).points == pytest.approx(40)
    assert expected_drop(broken, logs, Sharpness(1.0, 0.1)).points == pytest.approx(0)


def test_labels_that_are_all_right_make_probabilities_sharp() -> None:
    logs = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64).log()
    assert fitted_sharpness(logs, torch.tensor([0, 1])).value > 20
    assert fitted_sharpness(logs, torch.tensor([1, 0])).value < 0.04
    assert fitted_sharpness(logs * math.nan, torch.tensor([0, 1])) == Sharpness(1.0, 0.0)
    with pytest.raises(ValueError, match="two images"):
        expected_drop(logs[:1], logs[:1], Sharpness(1.0, 0.1))

"""Accuracy, agreement and paired differences against plain numpy."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.special
import scipy.stats
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import vqzoo
from vqzoo.data.evaluation_data import Batch, Data
from vqzoo.errors import UsageError, VqzooError
from vqzoo.evaluation.accuracy import Evaluation, agreement, evaluate, paired_difference


class Logits(nn.Module):
    """A model whose 'images' are its logits already, times `factor`."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.factor * x.flatten(1))


def data_of(logits: np.ndarray, labels: np.ndarray | None, size: int = 7, why: str = "") -> Data:
    def batches() -> Iterator[Batch]:
        for start in range(0, len(logits), size):
            x = torch.from_numpy(logits[start : start + size])
            y = None if labels is None else torch.from_numpy(labels[start : start + size])
            yield Batch(x, y)

    return Data("made", len(logits), None, why, batches)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 12), st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_accuracy_is_the_counted_one(seed: int, n: int, classes: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.permuted(np.arange(n * classes, dtype=np.float32)).reshape(n, classes)
    labels = rng.integers(0, classes, n)
    result = evaluate(Logits(), data_of(logits, labels, size))
    rank = (logits > logits[np.arange(n), labels][:, None]).sum(1)
    assert np.array_equal(result.correct.numpy(), rank == 0)
    assert result.top1 == pytest.approx(100 * np.mean(rank == 0))
    if classes < 5:
        assert result.top5 is None
    else:
        assert result.top5 == pytest.approx(100 * np.mean(rank < 5))
    assert (result.images, result.data) == (n, "made")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_wrong(bad: float) -> None:
    logits = np.eye(6, dtype=np.float32)
    logits[2, 2] = bad
    result = evaluate(Logits(), data_of(logits, np.arange(6)))
    assert result.correct.tolist() == [True, True, False, True, True, True]
    assert result.top5 == pytest.approx(500 / 6)


def test_modes_are_restored_and_dropout_is_off() -> None:
    model = nn.Sequential(Logits(), nn.BatchNorm1d(4))
    model.train()
    model[1].eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    logits = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    labels = logits.argmax(1)
    assert evaluate(model, data_of(logits, labels)).top1 == 100
    assert [module.training for module in model.modules()] == [True, True, True, False]
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_modes_are_restored_after_a_failure() -> None:
    model = Logits().train()
    with pytest.raises(VqzooError, match="labels 0 to 9, the model 3 classes"):
        evaluate(model, data_of(np.zeros((2, 3), np.float32), np.array([0, 9])))
    assert model.training
    assert model.dropout.training


def test_progress_counts_images() -> None:
    seen: list[tuple[int, int | None]] = []
    data = data_of(np.zeros((10, 5), np.float32), np.zeros(10, np.int64), size=4)
    evaluate(Logits(), data, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 10), (8, 10), (10, 10)]


def test_what_cannot_be_evaluated() -> None:
    logits = np.zeros((3, 5), np.float32)
    with pytest.raises(UsageError, match=r"no labels for this model \(because\).*agreement"):
        evaluate(Logits(), data_of(logits, None, why="because"))
    with pytest.raises(VqzooError, match="holds no image"):
        evaluate(Logits(), data_of(logits[:0], np.zeros(0, np.int64)))
    with pytest.raises(ValueError, match="open_data"):
        evaluate(Logits(), data_of(logits, np.zeros(3, np.int64)), images=2)


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.floats(0.1, 3))
@settings(max_examples=40, deadline=None)
def test_agreement_is_scipys(seed: int, n: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 6)).astype(np.float32) * 5
    noise = torch.from_numpy(rng.normal(size=6).astype(np.float32))

    class Shifted(Logits):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + noise

    other = factor * logits.astype(np.float64) + noise.numpy()
    result = agreement(Logits(), Shifted(factor), data_of(logits, None, why="no labels"))
    p, q = scipy.special.softmax(logits.astype(np.float64), 1), scipy.special.softmax(other, 1)
    assert result.kl == pytest.approx(scipy.stats.entropy(p, q, axis=1).mean(), abs=1e-4)
    assert result.top1 == pytest.approx(100 * np.mean(logits.argmax(1) == other.argmax(1)))
    assert result.images == n


def test_a_model_agrees_with_itself() -> None:
    model = Logits()
    logits = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
    result = agreement(model, model, data_of(logits, None))
    assert (result.top1, result.kl) == (100, 0)


def test_models_of_different_outputs_do_not_compare() -> None:
    wider = nn.Sequential(Logits(), nn.Linear(3, 4))
    with pytest.raises(UsageError, match="of 3 and of 4 classes"):
        agreement(Logits(), wider, data_of(np.zeros((2, 3), np.float32), None))


def evaluation(correct: np.ndarray) -> Evaluation:
    flags = torch.from_numpy(correct)
    return Evaluation("made", len(flags), 100 * float(flags.double().mean()), None, flags)


@given(st.integers(0, 2**32 - 1), st.integers(2, 300))
@settings(max_examples=60, deadline=None)
def test_paired_difference_is_the_textbooks(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random(n) < 0.9, rng.random(n) < 0.8
    result = paired_difference(evaluation(a), evaluation(b))
    # From the discordant pairs alone (Agresti, Categorical Data Analysis, section 11.1).
    gained, lost = np.sum(b & ~a), np.sum(a & ~b)
    variance = (gained + lost - (gained - lost) ** 2 / n) / (n * (n - 1))
    assert result.points == pytest.approx(100 * (gained - lost) / n)
    expected = 100 * scipy.stats.norm.ppf(0.975) * math.sqrt(variance)
    assert result.half_width == pytest.approx(expected, abs=1e-9)


def test_only_the_same_images_are_paired() -> None:
    with pytest.raises(ValueError, match="not paired"):
        paired_difference(evaluation(np.ones(3, bool)), evaluation(np.ones(4, bool)))
    with pytest.raises(ValueError, match="at least two"):
        paired_difference(evaluation(np.ones(1, bool)), evaluation(np.ones(1, bool)))


def test_the_embedded_model_reaches_93_percent() -> None:
    """tests/runs/test_embedded.py evaluates it on all 10,000."""
    vqzoo.register_models()
    model = timm.create_model("alexnet_mini.fmnist", pretrained=True)
    result = evaluate(model, "fmnist", images=1000)
    assert result.images == 1000
    assert result.top1 >= 93
    assert result.top5 is not None
    assert result.top5 > 99.5
    again = evaluate(model, "fmnist", images=1000)
    assert torch.equal(result.correct, again.correct)
    assert agreement(model, model, "fmnist", images=500).kl == 0

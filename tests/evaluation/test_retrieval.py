"""Retrieval by a network's features: extraction, search and errors."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.stats
import timm
import torch
from sklearn.metrics import average_precision_score
from sklearn.metrics.pairwise import cosine_similarity
from torch import Tensor, nn

import vqzoo
from vqzoo.data import fmnist
from vqzoo.data.evaluation_data import Batch, Data, open_data
from vqzoo.errors import UsageError, VqzooError
from vqzoo.evaluation.retrieval import (
    Features,
    beside_dense,
    extract_features,
    map_difference,
    retrieve,
)


class Linear(nn.Module):
    """A model whose features are its 'images' times a matrix."""

    def __init__(self, turn: Tensor) -> None:
        super().__init__()
        self.turn = nn.Parameter(turn)
        self.dropout = nn.Dropout(0.5)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.dropout(x.flatten(1) @ self.turn)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        assert pre_logits
        return x


def data_of(vectors: np.ndarray, labels: np.ndarray | None, why: str = "") -> Data:
    def batches() -> Iterator[Batch]:
        for start in range(0, len(vectors), 7):
            y = None if labels is None else torch.from_numpy(labels[start : start + 7])
            yield Batch(torch.from_numpy(vectors[start : start + 7]), y)

    return Data("made", len(vectors), None, why, batches)


def drawn(n: int = 40, d: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 4
    return (rng.normal(size=(n, d)) + 0.5 * np.eye(4, d)[labels]).astype(np.float32), labels


def expected_precision(queries: np.ndarray, database: np.ndarray, labels: np.ndarray) -> list:
    similar = cosine_similarity(queries.astype(np.float64), database.astype(np.float64))
    rest = [np.arange(len(labels)) != i for i in range(len(labels))]
    return [
        average_precision_score((labels == labels[i])[rest[i]], similar[i][rest[i]])
        for i in range(len(labels))
    ]


def test_features_are_searched_by_cosine_similarity() -> None:
    vectors, labels = drawn()
    turn = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    model = Linear(turn).train()
    features = extract_features(model, "linear", data_of(vectors, labels))
    assert model.dropout.training
    assert (features.vectors.dtype, features.data) == (torch.float32, "made")
    assert torch.equal(features.labels, torch.from_numpy(labels))
    result = retrieve(features)
    turned = vectors @ turn.numpy()
    expected = expected_precision(turned, turned, labels)
    assert result.average_precision.tolist() == pytest.approx(expected, abs=1e-9)
    assert result.map == pytest.approx(100 * np.mean(expected))
    assert (result.images, result.queries) == (40, 40)

    plain = Features("made", torch.from_numpy(vectors), torch.from_numpy(labels))
    crossed = retrieve(features, plain)
    expected = expected_precision(turned, vectors, labels)
    assert crossed.average_precision.tolist() == pytest.approx(expected, abs=1e-9)


def test_an_alexnets_features_are_its_second_last_dense_layer() -> None:
    vqzoo.register_models()
    model = timm.create_model("alexnet_mini.fmnist", pretrained=True).eval()
    seen: list[Tensor] = []
    hook = model.classifier[4].register_forward_hook(lambda _m, _x, out: seen.append(out.clone()))
    features = extract_features(model, "mini", open_data("fmnist", model, images=30))
    hook.remove()
    assert features.vectors.shape == (30, 2048)
    assert torch.equal(features.vectors, torch.cat(seen).relu())
    nearest = retrieve(features)
    assert nearest.map > 60  # at random 10
    assert nearest.precision_at_10 is not None


def test_few_images_have_no_precision_at_10() -> None:
    vectors, labels = drawn(10)
    features = Features("made", torch.from_numpy(vectors), torch.from_numpy(labels))
    assert retrieve(features).precision_at_10 is None
    vectors, labels = drawn(11)
    features = Features("made", torch.from_numpy(vectors), torch.from_numpy(labels))
    assert retrieve(features).precision_at_10 is not None


def test_the_difference_is_paired_over_queries() -> None:
    vectors, labels = drawn()
    dense = Features("made", torch.from_numpy(vectors), torch.from_numpy(labels))
    noise = np.random.default_rng(1).normal(size=vectors.shape).astype(np.float32)
    other = Features("made", torch.from_numpy(vectors + noise), torch.from_numpy(labels))
    reference = retrieve(dense)
    result = beside_dense(dense, reference, other)
    a, b = (np.asarray(r.average_precision) for r in (reference, result.compressed))
    interval = scipy.stats.norm.interval(
        0.95, *(100 * np.array([np.mean(b - a), scipy.stats.sem(b - a)]))
    )
    assert result.change.points == pytest.approx(result.compressed.map - reference.map)
    assert result.change.half_width == pytest.approx((interval[1] - interval[0]) / 2)
    assert result.asymmetric is not None
    assert torch.equal(
        result.asymmetric.average_precision, retrieve(other, dense).average_precision
    )
    assert result.asymmetric_change == map_difference(reference, result.asymmetric)

    itself = beside_dense(dense, reference, dense)
    assert (itself.change.points, itself.change.half_width) == (0, 0)
    assert itself.asymmetric_change == itself.change


def test_features_of_another_width_have_no_asymmetric_search() -> None:
    vectors, labels = (torch.from_numpy(array) for array in drawn())
    dense, narrow = Features("made", vectors, labels), Features("made", vectors[:, :3], labels)
    result = beside_dense(dense, retrieve(dense), narrow)
    assert result.asymmetric is None
    assert result.asymmetric_change is None


def test_features_that_are_not_finite_are_as_similar_as_orthogonal_ones() -> None:
    vectors = np.eye(4, dtype=np.float32).repeat(3, axis=0)
    vectors[0] = math.nan
    labels = np.arange(4).repeat(3)
    result = retrieve(extract_features(Linear(torch.eye(4)), "linear", data_of(vectors, labels)))
    # The broken query ties all 11 others, 2 of them relevant; its class mates find it tied, at 0,
    # with the 9 of other classes.
    assert result.average_precision[:3].tolist() == pytest.approx([2 / 11, *[(1 + 2 / 11) / 2] * 2])
    assert result.average_precision[3:].tolist() == [1.0] * 9


@pytest.mark.parametrize(
    ("labels", "why", "says"),
    [
        (None, "because", r"made has no labels \(because\).*folder per class"),
        (np.arange(5), "", "no two of 5 images of made"),
        (np.zeros(5, np.int64), "", "5 images of made are all of one class"),
    ],
)
def test_data_that_cannot_be_searched(labels: np.ndarray | None, why: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        extract_features(
            Linear(torch.eye(3)), "linear", data_of(np.ones((5, 3), np.float32), labels, why)
        )


def test_no_image() -> None:
    empty = data_of(np.ones((0, 3), np.float32), np.zeros(0, np.int64))
    with pytest.raises(VqzooError, match="holds no image"):
        extract_features(Linear(torch.eye(3)), "linear", empty)


class FeatureMaps(Linear):
    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return x[:, :, None, None]


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (nn.Linear(3, 3), "gives no features for retrieval"),
        (FeatureMaps(torch.eye(3)), "one feature vector per image"),
    ],
)
def test_models_without_features(model: nn.Module, says: str) -> None:
    with pytest.raises(UsageError, match=f"^odd .*{says}"):
        extract_features(model, "odd", data_of(*drawn(8, 3)))


def test_features_of_other_images_are_refused() -> None:
    vectors, labels = (torch.from_numpy(array) for array in drawn())
    a = Features("made", vectors, labels)
    with pytest.raises(ValueError, match="not the same images"):
        retrieve(a, Features("made", vectors, labels.flip(0)))
    with pytest.raises(ValueError, match="not paired"):
        map_difference(retrieve(a), retrieve(Features("other", vectors, labels)))


def test_a_network_without_a_classifier_gives_features() -> None:
    model = timm.create_model("test_resnet", num_classes=0).eval()
    split = fmnist.test_split()
    features = extract_features(
        model, "headless", open_data("fmnist", model, images=20, own_labels=True)
    )
    assert features.vectors.shape[0] == 20
    assert torch.equal(features.labels, split.labels[::500])

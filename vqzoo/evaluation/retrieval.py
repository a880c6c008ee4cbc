"""Image retrieval with a network's features: the second experiment of Gong et al. 2014.

Features are the inputs of a network's last layer (timm's `pre_logits`): for an AlexNet, as in the
paper, the activations of the second-last dense layer after the ReLU. Every image in turn is a
query for the other images; those of its class are relevant.
"""

import inspect
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vqzoo.data.evaluation_data import Data
from vqzoo.errors import UsageError
from vqzoo.evaluation.accuracy import Progress, evaluating, labelled
from vqzoo.evaluation.answers import run_on
from vqzoo.evaluation.ranking import rank_others
from vqzoo.evaluation.statistics import PairedDifference, paired_points
from vqzoo.wrappers import as_network


@dataclass(frozen=True)
class Features:
    """A network's features of labelled images.

    Attributes:
        data: name of the data.
        vectors: float32, (n, d), on the CPU.
        labels: int64, (n,).
    """

    data: str
    vectors: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Retrieval:
    """Quality of the search for images of a query's class among all other images.

    Attributes:
        data: name of the data.
        images: number of images.
        queries: number of images that share their class with another image.
        map: mean of `average_precision`, in percent.
        precision_at_1: mean precision at 1, in percent.
        precision_at_10: mean precision at 10, in percent; None with fewer than ten other images.
        average_precision: float64 in [0, 1], (queries,).
    """

    data: str
    images: int
    queries: int
    map: float
    precision_at_1: float
    precision_at_10: float | None
    average_precision: Tensor


@dataclass(frozen=True)
class BesideDense:
    """Retrieval by a compressed network, compared with the dense one.

    Attributes:
        compressed: retrieval by the compressed network's features.
        change: its mAP minus the dense network's, in percentage points.
        asymmetric: retrieval with the compressed network's features as queries in a database of
            the dense network's; None if their widths differ.
        asymmetric_change: its mAP minus the dense network's, in percentage points.
    """

    compressed: Retrieval
    change: PairedDifference
    asymmetric: Retrieval | None
    asymmetric_change: PairedDifference | None


def check_features(model: nn.Module, name: str) -> None:
    """Refuse a network that does not give features besides logits.

    Raises:
        UsageError: it lacks `forward_features` or `forward_head(pre_logits=True)`.
    """
    head = getattr(model, "forward_head", None)
    if (
        not callable(getattr(model, "forward_features", None))
        or not callable(head)
        or "pre_logits" not in inspect.signature(head).parameters
    ):
        raise UsageError(
            f"{name} gives no features for retrieval: it lacks timm's forward_features or "
            "forward_head(pre_logits=True)"
        )


def extract_features(
    model: nn.Module,
    name: str,
    data: Data,
    *,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Features:
    """Compute the features of all images of `data`; the labels need not be the model's classes.

    Args:
        model: a timm model. It is moved to `device` and run in eval mode; the modes of its modules
            are restored.
        name: the model's name, for messages.
        data: labelled images.
        device: where to run the model.
        progress: called with the number of images done and in total.

    Raises:
        UsageError: the model gives no features, or the data has no labels, only one class, or no
            two images of one class.
        VqzooError: the data cannot be read or holds no image, or the model fails on the images.
    """
    model = as_network(model)
    check_features(model, name)
    if not data.labelled:
        raise UsageError(
            f"{data.name} has no labels ({data.unlabelled}): retrieval needs a folder per class, "
            "or per group of images that belong together"
        )
    vectors: list[Tensor] = []
    labels: list[Tensor] = []

    def features_of(images: Tensor) -> object:
        return model.forward_head(model.forward_features(images), pre_logits=True)  # type: ignore[operator]

    with evaluating(model, device):
        for x, y in labelled(data, progress):
            output = run_on(model, features_of, x.to(device))
            if not isinstance(output, Tensor) or output.ndim != 2:
                raise UsageError(f"{name} does not give one feature vector per image")
            vectors.append(output.float().cpu())
            labels.append(y)
    features = Features(data.name, torch.cat(vectors), torch.cat(labels))
    _check_labels(features)
    return features


def retrieve(
    queries: Features,
    database: Features | None = None,
    *,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Retrieval:
    """Search for every image among all others by cosine similarity.

    Ties have no order (see `vqzoo.evaluation.ranking`). Features that are zero or not finite are
    as similar to all others as orthogonal ones.

    Args:
        queries: features that are searched for.
        database: features of the same images that are searched; the queries themselves by default.
        device: where similarities are computed, in float64; the CPU instead of `mps`.
        progress: called with the number of queries done and in total.

    Raises:
        ValueError: the two are not features of the same images, or differ in width.
    """
    images = queries if database is None else database
    if queries.data != images.data or not torch.equal(queries.labels, images.labels):
        raise ValueError(f"features of {queries.data} and {images.data}: not the same images")
    place = torch.device(device)
    if place.type == "mps":
        place = torch.device("cpu")
    vectors = queries.vectors.to(place)
    rankings = rank_others(
        vectors,
        vectors if database is None else database.vectors.to(place),
        queries.labels,
        progress=progress,
    )
    tenth = rankings.precision.get(10)
    return Retrieval(
        data=queries.data,
        images=len(queries.labels),
        queries=len(rankings.average_precision),
        map=100 * float(rankings.average_precision.mean()),
        precision_at_1=100 * float(rankings.precision[1].mean()),
        precision_at_10=None if tenth is None else 100 * float(tenth.mean()),
        average_precision=rankings.average_precision,
    )


def beside_dense(
    dense: Features,
    reference: Retrieval,
    compressed: Features,
    *,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> BesideDense:
    """Compare retrieval by the compressed network's features with that by the dense network's.

    Args:
        dense: the dense network's features.
        reference: their retrieval, from `retrieve(dense)`.
        compressed: the compressed network's features of the same images.
        device: where similarities are computed; see `retrieve`.
        progress: called with the number of queries done and in total; starts anew for the second
            search.

    Raises:
        ValueError: the features are not of the same images.
    """
    symmetric = retrieve(compressed, device=device, progress=progress)
    asymmetric = None
    if compressed.vectors.shape == dense.vectors.shape:
        asymmetric = retrieve(compressed, dense, device=device, progress=progress)
    return BesideDense(
        compressed=symmetric,
        change=map_difference(reference, symmetric),
        asymmetric=asymmetric,
        asymmetric_change=None if asymmetric is None else map_difference(reference, asymmetric),
    )


def map_difference(a: Retrieval, b: Retrieval) -> PairedDifference:
    """mAP of `b` minus mAP of `a`, in percentage points, with the 95% interval of paired queries.

    The interval is for other queries in the same database; it treats the queries as independent.

    Raises:
        ValueError: the two do not have the same queries.
    """
    if (a.data, a.images, a.queries) != (b.data, b.images, b.queries):
        raise ValueError(f"{a.queries} queries of {a.data}, {b.queries} of {b.data}: not paired")
    return paired_points(a.average_precision, b.average_precision)


def _check_labels(features: Features) -> None:
    counts = features.labels.unique(return_counts=True)[1]
    images = f"{len(features.labels)} images of {features.data}"
    if int(counts.max()) < 2:
        raise UsageError(f"no two of {images} are of the same class: take more images")
    if len(counts) < 2:
        raise UsageError(f"{images} are all of one class: retrieval needs at least two classes")

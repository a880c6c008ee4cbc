"""Image retrieval with a network's features: the second experiment of Gong et al. 2014.

Features are what the last layer of a network takes in (timm's `pre_logits`): of an AlexNet the
activations of its second-last dense layer, after the ReLU, as in the paper. Every image in turn is
a query for the other images; those of its class are relevant.
"""

import inspect
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vqzoo.data.evaluation_data import Data
from vqzoo.errors import UsageError
from vqzoo.evaluation.accuracy import Progress, evaluating, labelled
from vqzoo.evaluation.ranking import rank_others
from vqzoo.evaluation.statistics import PairedDifference, paired_points


@dataclass(frozen=True)
class Features:
    """One network's features of labelled images.

    `vectors` is float32, n x d, on the CPU; `labels` int64, n.
    """

    data: str
    vectors: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Retrieval:
    """How well images of a query's class are found among all others, in percent.

    `queries` counts the images that share their class with another one; `map` is the mean over
    them of `average_precision` (float64, a fraction each); `precision_at_10` is None where there
    are fewer than ten other images.
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
    """A compressed network's retrieval beside the dense one's; changes are in points of mAP.

    `asymmetric` is with the compressed network's features as queries in a database of the dense
    one's, None where their widths differ.
    """

    compressed: Retrieval
    change: PairedDifference
    asymmetric: Retrieval | None
    asymmetric_change: PairedDifference | None


def check_features(model: nn.Module, name: str) -> None:
    """Refuse a network that does not tell features from logits.

    Raises:
        UsageError: it has no `forward_features` and `forward_head(pre_logits=True)`.
    """
    head = getattr(model, "forward_head", None)
    if (
        not callable(getattr(model, "forward_features", None))
        or not callable(head)
        or "pre_logits" not in inspect.signature(head).parameters
    ):
        raise UsageError(
            f"{name} gives no features to search by: retrieval needs timm's forward_features and "
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
    """Features of all images of `data`, whose labels may be the data's own.

    Args:
        model: a timm model. It is moved to `device`, and run in eval mode; its modules' modes are
            restored.
        name: what errors call it.

    Raises:
        UsageError: the model gives no features, the data has no labels, or no two of one class
            and two of different classes.
        VqzooError: the data cannot be read, or holds no image.
    """
    check_features(model, name)
    if not data.labelled:
        raise UsageError(
            f"{data.name} has no labels ({data.unlabelled}): retrieval needs a folder for each "
            "class, or group, of images that belong together"
        )
    vectors: list[Tensor] = []
    labels: list[Tensor] = []
    with evaluating(model, device):
        for x, y in labelled(data, progress):
            found = model.forward_head(model.forward_features(x.to(device)), pre_logits=True)  # type: ignore[operator]
            if not isinstance(found, Tensor) or found.ndim != 2:
                raise UsageError(f"{name} does not give one vector of features an image")
            vectors.append(found.float().cpu())
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

    Ties have no order (`vqzoo.evaluation.ranking`); features that are zero or not finite are as
    similar to all others as orthogonal ones.

    Args:
        database: other features of the same images, if the queries don't search their own.
        device: where similarities are computed (in float64: on the CPU if it is `mps`).
        progress: called with the queries done, and the queries in all.

    Raises:
        ValueError: the two are not of the same images, or not equally wide.
    """
    searched = queries if database is None else database
    if queries.data != searched.data or not torch.equal(queries.labels, searched.labels):
        raise ValueError(f"features of {queries.data} and {searched.data}: not the same images")
    where = torch.device(device)
    if where.type == "mps":
        where = torch.device("cpu")
    asked = queries.vectors.to(where)
    found = rank_others(
        asked,
        asked if database is None else database.vectors.to(where),
        queries.labels,
        progress=progress,
    )
    tenth = found.precision.get(10)
    return Retrieval(
        data=queries.data,
        images=len(queries.labels),
        queries=len(found.average_precision),
        map=100 * float(found.average_precision.mean()),
        precision_at_1=100 * float(found.precision[1].mean()),
        precision_at_10=None if tenth is None else 100 * float(tenth.mean()),
        average_precision=found.average_precision,
    )


def beside_dense(
    dense: Features,
    reference: Retrieval,
    compressed: Features,
    *,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> BesideDense:
    """Retrieval by the compressed network's features beside that by the dense one's.

    Args:
        dense: the dense network's features.
        reference: what they came to.
        compressed: the compressed network's features of the same images.
        progress: called with the queries done; begins again for the second search.

    Raises:
        ValueError: the features are not of the same images.
    """
    own = retrieve(compressed, device=device, progress=progress)
    crossed = None
    if compressed.vectors.shape == dense.vectors.shape:
        crossed = retrieve(compressed, dense, device=device, progress=progress)
    return BesideDense(
        compressed=own,
        change=map_difference(reference, own),
        asymmetric=crossed,
        asymmetric_change=None if crossed is None else map_difference(reference, crossed),
    )


def map_difference(a: Retrieval, b: Retrieval) -> PairedDifference:
    """mAP of `b` less that of `a`, in points, with the 95% interval of the paired queries.

    The interval is for other queries to the same database: the queries count as independent.

    Raises:
        ValueError: the two are not of the same queries.
    """
    if (a.data, a.images, a.queries) != (b.data, b.images, b.queries):
        raise ValueError(f"{a.queries} queries of {a.data}, {b.queries} of {b.data}: not paired")
    return paired_points(a.average_precision, b.average_precision)


def _check_labels(features: Features) -> None:
    counts = features.labels.unique(return_counts=True)[1]
    what = f"{len(features.labels)} images of {features.data}"
    if int(counts.max()) < 2:
        raise UsageError(f"no two of {what} are of one class: take more images")
    if len(counts) < 2:
        raise UsageError(f"{what} are all of one class: retrieval needs at least two")

"""`vqzoo eval`: measure the accuracy or the retrieval of an artifact or a dense model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqzoo.data.evaluation_data import Data, open_data
from vqzoo.data.sources import ReadOptions
from vqzoo.errors import UsageError
from vqzoo.evaluation.accuracy import Evaluation, evaluate, paired_difference
from vqzoo.evaluation.retrieval import (
    Features,
    Retrieval,
    beside_dense,
    extract_features,
    retrieve,
)
from vqzoo.evaluation.statistics import PairedDifference
from vqzoo.models.embedded import default_data
from vqzoo.network.build import Mode
from vqzoo.network.by_name import NamedNetwork, names_artifact, open_network
from vqzoo.progress import Watcher
from vqzoo.runs.prepare import parse_device


@dataclass(frozen=True)
class MeasureRequest:
    """A network to measure, and how.

    Attributes:
        subject: an artifact's folder, its repository on the Hub ("org/name"), or a timm model
            ("hf-hub:org/name" is one).
        reference: another network, to compare the subject with.
        data: the images; None for the subject's own, where vqzoo ships them.
        images: measure on at most this many images.
        checkpoint: weights of the subject, or of the reference if the subject is an artifact.
        device: where to run the networks.
        mode: how artifacts run; see `load`.
        class_map: the class of each class folder of the data.
        skip_unreadable: leave out images that cannot be read.
    """

    subject: str
    reference: str | None = None
    data: str | None = None
    images: int | None = None
    checkpoint: Path | None = None
    device: str = "cpu"
    mode: Mode = "decoded"
    class_map: Path | None = None
    skip_unreadable: bool = False


def measure_accuracy(request: MeasureRequest, watcher: Watcher) -> dict[str, Any]:
    """Measure top-1 and top-5 accuracy, in percent.

    Returns:
        model, data, images, top1 and top5 (None with fewer than five classes); of a folder also
        labels, and unreadable where images were left out. With a reference
        also `reference`: the same for it, and `difference`: top1 in points, and ci95, the
        half-width of its 95% confidence interval (None with a single image).

    Raises:
        UsageError: a network does not exist, or the data has no labels for it.
        VqzooError: weights or data are not available.
    """
    device = parse_device(request.device)
    evaluations: list[Evaluation] = []
    for network, data in _open(request, watcher, own_labels=False):
        if not data.labelled:
            raise UsageError(f"{data.name} has no labels that fit {network.label}: "
                             f"{data.unlabelled}")  # fmt: skip
        with watcher.images(f"evaluating {network.label}") as steps:
            evaluations.append(evaluate(network.module, data, device=device, progress=steps))
    result = _accuracy(request.subject, evaluations[0])
    if request.reference is not None:
        before, after = evaluations[1], evaluations[0]
        change = paired_difference(before, after) if before.images > 1 else None
        result["reference"] = {
            **_accuracy(request.reference, before),
            "difference": {
                "top1": after.top1 - before.top1,
                "ci95": change.half_width if change else None,
            },
        }
    return result


def measure_retrieval(request: MeasureRequest, watcher: Watcher) -> dict[str, Any]:
    """Measure retrieval by the last layer's inputs: mean average precision, in percent.

    Returns:
        model, data, images, queries, map, precision_at_1 and precision_at_10 (None with fewer than
        eleven images), and unreadable where images were left out. With a reference also
        `reference`: the same for it, `difference` (map and ci95, in points) and `asymmetric`: map
        and difference of the subject's queries in the reference's database, None if their features
        differ in width.

    Raises:
        UsageError: a network does not exist or gives no features, or the data has no labels.
        VqzooError: weights or data are not available.
    """
    device = parse_device(request.device)
    features: list[Features] = []
    opened = _open(request, watcher, own_labels=True)
    unreadable = opened[0][1].unreadable
    for network, data in opened:
        with watcher.images(f"extracting features of {network.label}") as steps:
            features.append(
                extract_features(network.module, network.label, data, device=device, progress=steps)
            )
    if request.reference is None:
        with watcher.images("searching") as steps:
            alone = retrieve(features[0], device=device, progress=steps)
        return _retrieval(request.subject, alone, unreadable)
    after, before = features
    with watcher.images(f"searching with {request.reference}") as steps:
        dense = retrieve(before, device=device, progress=steps)
    with watcher.images(f"searching with {request.subject}") as steps:
        beside = beside_dense(before, dense, after, device=device, progress=steps)
    result = _retrieval(request.subject, beside.compressed, unreadable)
    result["reference"] = {
        **_retrieval(request.reference, dense, unreadable),
        "difference": _points(beside.change),
        "asymmetric": None,
    }
    if beside.asymmetric is not None and beside.asymmetric_change is not None:
        result["reference"]["asymmetric"] = {
            "map": beside.asymmetric.map,
            "difference": _points(beside.asymmetric_change),
        }
    return result


def _open(
    request: MeasureRequest, watcher: Watcher, *, own_labels: bool
) -> list[tuple[NamedNetwork, Data]]:
    """The subject and the reference, if any, each with the images preprocessed for it."""
    names = [request.subject] + ([] if request.reference is None else [request.reference])
    networks: list[NamedNetwork] = []
    checkpoint = request.checkpoint
    for name in names:
        networks.append(open_network(name, watcher, mode=request.mode, checkpoint=checkpoint))
        if not names_artifact(name):
            checkpoint = None
    if checkpoint is not None:
        raise UsageError(f"{request.subject} already has weights: leave --checkpoint out")
    if request.mode == "codes" and not any(map(names_artifact, names)):
        raise UsageError(f"{request.subject} is a dense model: only artifacts run from codes")
    spec = request.data or default_data(networks[0].name)
    if spec is None:
        raise UsageError(f"vqzoo has no images for {request.subject}: give --data imagefolder:PATH")
    read = ReadOptions(request.class_map, request.skip_unreadable)
    with watcher.phase("opening the images"):
        return [
            (
                network,
                open_data(
                    spec, network.module, images=request.images, own_labels=own_labels, read=read
                ),
            )
            for network in networks
        ]


def _accuracy(model: str, result: Evaluation) -> dict[str, Any]:
    return {
        "model": model,
        "data": result.data,
        "images": result.images,
        "top1": result.top1,
        "top5": result.top5,
        **({"labels": result.labels} if result.labels else {}),
        **({"unreadable": list(result.unreadable)} if result.unreadable else {}),
    }


def _retrieval(model: str, result: Retrieval, unreadable: Sequence[str]) -> dict[str, Any]:
    return {
        "model": model,
        "data": result.data,
        "images": result.images,
        "queries": result.queries,
        "map": result.map,
        "precision_at_1": result.precision_at_1,
        "precision_at_10": result.precision_at_10,
        **({"unreadable": list(unreadable)} if unreadable else {}),
    }


def _points(change: PairedDifference) -> dict[str, float]:
    return {"map": change.points, "ci95": change.half_width}

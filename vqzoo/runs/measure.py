"""What an artifact or a dense model is worth on images: accuracy, or retrieval by its features."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vqzoo.data.evaluation_data import Data, open_data
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
from vqzoo.models.dense import find_model
from vqzoo.models.embedded import default_data
from vqzoo.models.sources import split_source
from vqzoo.network.build import Mode
from vqzoo.network.load import load, names_repository
from vqzoo.progress import Watcher
from vqzoo.runs.prepare import parse_device


@dataclass(frozen=True)
class Asked:
    """What is to be measured, and how.

    Attributes:
        subject: an artifact's folder, its repository on the Hub ("org/name"), or a timm model
            ("hf-hub:org/name" is one).
        reference: another such, to compare the subject with.
        data: what on; by default the subject's own data where vqzoo ships it.
        images: at most so many of them.
        checkpoint: weights of the subject, or of the reference if the subject is an artifact.
        mode: how artifacts run; see `load`.
    """

    subject: str
    reference: str | None = None
    data: str | None = None
    images: int | None = None
    checkpoint: Path | None = None
    device: str = "cpu"
    mode: Mode = "decoded"


def measure_accuracy(asked: Asked, watcher: Watcher) -> dict[str, Any]:
    """Top-1 and top-5 accuracy, in percent.

    Returns:
        model, data, images, top1 and top5 (None where there are under five classes); with a
        reference also reference: the same of it, and difference: top1 in points, and ci95, the
        half-width of its 95% confidence interval (None from a single image).

    Raises:
        UsageError: the subject does not exist, or the data has no labels for it.
    """
    device = parse_device(asked.device)
    evaluations: list[Evaluation] = []
    for network, data in _open(asked, watcher, own_labels=False):
        if not data.labelled:
            raise UsageError(f"{data.name} has no labels that fit {network.asked}: "
                             f"{data.unlabelled}")  # fmt: skip
        with watcher.images(f"evaluating {network.asked}") as steps:
            evaluations.append(evaluate(network.module, data, device=device, progress=steps))
    result = _accuracy(asked.subject, evaluations[0])
    if asked.reference is not None:
        before, after = evaluations[1], evaluations[0]
        change = paired_difference(before, after) if before.images > 1 else None
        result["reference"] = {
            **_accuracy(asked.reference, before),
            "difference": {
                "top1": after.top1 - before.top1,
                "ci95": change.half_width if change else None,
            },
        }
    return result


def measure_retrieval(asked: Asked, watcher: Watcher) -> dict[str, Any]:
    """Mean average precision of retrieval by the last layer's inputs, in percent.

    Returns:
        model, data, images, queries, map, precision_at_1 and precision_at_10 (None from under
        eleven images); with a reference also reference: the same of it, difference (map and ci95,
        in points) and asymmetric: map and difference of the subject's queries in the reference's
        database, None where their features differ in width.

    Raises:
        UsageError: the subject does not exist or gives no features, or the data has no labels.
    """
    device = parse_device(asked.device)
    features: list[Features] = []
    for network, data in _open(asked, watcher, own_labels=True):
        with watcher.images(f"features of {network.asked}") as steps:
            features.append(
                extract_features(network.module, network.asked, data, device=device, progress=steps)
            )
    if asked.reference is None:
        with watcher.images("searching") as steps:
            return _retrieval(asked.subject, retrieve(features[0], device=device, progress=steps))
    after, before = features
    with watcher.images(f"searching by {asked.reference}") as steps:
        dense = retrieve(before, device=device, progress=steps)
    with watcher.images(f"searching by {asked.subject}") as steps:
        found = beside_dense(before, dense, after, device=device, progress=steps)
    result = _retrieval(asked.subject, found.compressed)
    result["reference"] = {
        **_retrieval(asked.reference, dense),
        "difference": _points(found.change),
        "asymmetric": None,
    }
    if found.asymmetric is not None and found.asymmetric_change is not None:
        result["reference"]["asymmetric"] = {
            "map": found.asymmetric.map,
            "difference": _points(found.asymmetric_change),
        }
    return result


@dataclass(frozen=True)
class _Network:
    """A network, its full timm name, and what the user called it."""

    module: nn.Module
    name: str
    asked: str


def _open(asked: Asked, watcher: Watcher, *, own_labels: bool) -> list[tuple[_Network, Data]]:
    """The subject, and the reference where there is one, each with the images as it wants them."""
    names = [asked.subject] + ([] if asked.reference is None else [asked.reference])
    networks: list[_Network] = []
    checkpoint = asked.checkpoint
    for name in names:
        if _names_artifact(name):
            networks.append(_load(name, asked.mode, watcher))
        else:
            networks.append(_find(name, watcher, checkpoint))
            checkpoint = None
    if checkpoint is not None:
        raise UsageError(f"{asked.subject} has weights of its own: leave --checkpoint out")
    if asked.mode == "codes" and not any(map(_names_artifact, names)):
        raise UsageError(f"{asked.subject} is a dense model: only artifacts run from codes")
    spec = asked.data or default_data(networks[0].name)
    if spec is None:
        raise UsageError(
            f"{asked.subject} has no data of its own here: give --data imagefolder:PATH"
        )
    return [
        (network, open_data(spec, network.module, images=asked.images, own_labels=own_labels))
        for network in networks
    ]


def _names_artifact(name: str) -> bool:
    return Path(name).is_dir() or (names_repository(name) and split_source(name)[0] is None)


def _load(name: str, mode: Mode, watcher: Watcher) -> _Network:
    with watcher.phase(f"loading {name}"):
        module = load(name, mode=mode)
    cfg: dict[str, Any] = getattr(module, "pretrained_cfg", {})
    return _Network(module, f"{cfg['architecture']}.{cfg.get('tag')}", name)


def _find(name: str, watcher: Watcher, checkpoint: Path | None) -> _Network:
    if ":" not in name and (os.sep in name or name.startswith("~")):
        raise UsageError(f"there is no folder {name}")
    opened = find_model(name, watcher, checkpoint=checkpoint)
    return _Network(opened.module, opened.name, name)


def _accuracy(model: str, result: Evaluation) -> dict[str, Any]:
    return {
        "model": model,
        "data": result.data,
        "images": result.images,
        "top1": result.top1,
        "top5": result.top5,
    }


def _retrieval(model: str, result: Retrieval) -> dict[str, Any]:
    return {
        "model": model,
        "data": result.data,
        "images": result.images,
        "queries": result.queries,
        "map": result.map,
        "precision_at_1": result.precision_at_1,
        "precision_at_10": result.precision_at_10,
    }


def _points(change: PairedDifference) -> dict[str, float]:
    return {"map": change.points, "ci95": change.half_width}

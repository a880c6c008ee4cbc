"""The dense model's evaluation: measured, or read from a folder that runs share."""

import json
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from vqzoo.artifact.files import canonical_json, sha256_text, shared_file
from vqzoo.data.batches import Data
from vqzoo.errors import VqzooError
from vqzoo.evaluation.accuracy import Evaluation
from vqzoo.models.dense import OpenedModel
from vqzoo.progress import Watcher
from vqzoo.runs.before_after import Baseline, measure_baseline
from vqzoo.runs.fields.reading import reading_fields
from vqzoo.runs.recipe import Recipe
from vqzoo.runs.shared.answers import known_answers
from vqzoo.storage.shared import SharedFolder

_MOST_BYTES = 64 << 20  # of an evaluation's file


def baseline_of(
    recipe: Recipe,
    dense: OpenedModel,
    data: Data | None,
    device: torch.device,
    watcher: Watcher,
    shared: SharedFolder | None,
) -> Baseline:
    """`measure_baseline`, once for all runs that share a folder, a dense model and its images.

    Args:
        recipe: the request, which names the images.
        dense: the model; its batch norms are folded if the recipe folds them.
        data: the images that the recipe names.
        device: where to evaluate.
        watcher: receives progress.
        shared: the folder; None measures anew.
    """
    if shared is None or data is None:
        return measure_baseline(dense.module, data, device, watcher)
    digest, start = _digest(recipe, dense, data, device), time.perf_counter()
    baseline = _measured(digest, dense, data, device, watcher, shared)
    if data.images is None or (data.labelled and recipe.budget is None):
        return baseline
    answers = known_answers(digest, dense.module, data, device, watcher, shared)
    return replace(baseline, answers=answers, seconds=time.perf_counter() - start)


def _measured(
    digest: str,
    dense: OpenedModel,
    data: Data,
    device: torch.device,
    watcher: Watcher,
    shared: SharedFolder,
) -> Baseline:
    if not data.labelled:
        return measure_baseline(dense.module, data, device, watcher)
    name, start = f"dense/{digest}.json", time.perf_counter()
    path = shared.find(name, _MOST_BYTES)
    if (evaluation := _load(path, data)) is not None:
        return Baseline(dense.module, data, device, evaluation, time.perf_counter() - start)
    baseline = measure_baseline(dense.module, data, device, watcher)
    if baseline.evaluation is not None:
        try:
            _save(path, baseline.evaluation)
            shared.publish(name)
        except (OSError, VqzooError) as error:
            watcher.say(f"The dense model's evaluation cannot be kept: {error}")
    return baseline


def _digest(recipe: Recipe, dense: OpenedModel, data: Data, device: torch.device) -> str:
    """Hex sha256 of everything that the evaluation follows from: of images, what they are rather
    than where. Streams, and data sets that do not store images one by one, go by their names."""
    facts = {
        "versions": [version(package) for package in ("vqzoo", "torch", "timm")],
        "device": device.type,
        "model": dense.name,
        "network": str(dense.module),
        "arguments": recipe.model_args,
        "weights": dense.weights_sha256,
        "folded": recipe.fold_norms,
        "data": [data.name if data.content is None else None, data.labels],
        "images": recipe.images if data.content is None else data.content(),
        "reading": reading_fields(recipe.class_map, recipe.skip_unreadable),
    }
    return sha256_text(canonical_json(facts))


def _load(path: Path, data: Data) -> Evaluation | None:
    """What `_save` wrote; None if there is nothing, or only a damaged file."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        bits = np.frombuffer(bytes.fromhex(kept["correct"]), dtype=np.uint8)
        if len(bits) != -(-kept["images"] // 8):
            return None
        correct = np.unpackbits(bits, count=kept["images"]).astype(bool)
        return Evaluation(
            data=data.name,
            images=kept["images"],
            top1=kept["top1"],
            top5=kept["top5"],
            correct=torch.from_numpy(correct),
            labels=kept["labels"],
            unreadable=data.unreadable,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _save(path: Path, evaluation: Evaluation) -> None:
    kept = {
        "images": evaluation.images,
        "top1": evaluation.top1,
        "top5": evaluation.top5,
        "correct": np.packbits(evaluation.correct.numpy()).tobytes().hex(),
        "labels": evaluation.labels,
    }
    with shared_file(path) as temporary:
        temporary.write_text(canonical_json(kept), encoding="utf-8")

"""Retrieval by several methods at several ratios on one model, as in Gong et al. 2014."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from vqzoo.artifact.files import canonical_json, sha256_file, sha256_text, write_text
from vqzoo.artifact.schema import WEIGHTS_FILE
from vqzoo.comparison.accuracy import Comparison, Point, compare
from vqzoo.data.evaluation_data import Data, open_data
from vqzoo.errors import UsageError
from vqzoo.evaluation.retrieval import Features, Retrieval, beside_dense, extract_features, retrieve
from vqzoo.models.dense import find_model
from vqzoo.models.embedded import default_data
from vqzoo.network.load import load
from vqzoo.plugin.files import plugin_files
from vqzoo.plugin.manager import installed_plugins
from vqzoo.progress import Watcher
from vqzoo.runs.prepare import parse_device
from vqzoo.runs.recipe import Recipe, make_recipe

_FILE = "retrieval.json"


@dataclass(frozen=True)
class RetrievalPoint:
    """One artifact of a comparison; `folder`, method and ratios are those of its `compare.Point`.

    Attributes:
        sha256: of the artifact's weights file.
        map: mean average precision, percent.
        change: against the dense model, in points.
        ci95: half-width of the change's 95% confidence interval, paired over queries.
        asymmetric_map: with the artifact's features as queries in the dense model's database.
        asymmetric_change: of that, against the dense model.
        asymmetric_ci95: of that change.
    """

    method: str
    ratio_layers: float
    ratio_file: float
    map: float
    change: float
    ci95: float
    asymmetric_map: float
    asymmetric_change: float
    asymmetric_ci95: float
    folder: str
    sha256: str


@dataclass(frozen=True)
class RetrievalComparison:
    """The points, and what the dense model reaches on the same queries (percent).

    `asked_sha256` tells what was measured: the dense weights, the data and the number of images.
    """

    model: str
    layers: str
    data: str
    images: int
    queries: int
    dense_map: float
    asked_sha256: str
    points: list[RetrievalPoint]


@dataclass(frozen=True)
class _Dense:
    """The dense model's side of every point."""

    data: Data
    features: Features
    retrieval: Retrieval
    device: torch.device
    plugins: Sequence[Path]
    asked_sha256: str


def compare_by_retrieval(
    base: Mapping[str, Any],
    methods: Sequence[str],
    ratios: Sequence[float],
    watcher: Watcher,
    out: Path,
    *,
    force: bool = False,
) -> RetrievalComparison:
    """`compare`, and then retrieval by each of its artifacts, read back from disk.

    The artifacts are the same ones as without retrieval, and are taken as they are where they lie
    in `out`; so are retrieval's points in its `retrieval.json`.

    Args and errors: as `compare`'s.

    Raises:
        UsageError: also where the model gives no features, or the data has no labels.
    """
    dense = _dense(_checked(base, methods, ratios), watcher)
    compared = compare(base, methods, ratios, watcher, out, force=force)
    keys = [
        (found.folder, sha256_file(out / found.folder / WEIGHTS_FILE)) for found in compared.points
    ]
    known = _known(out / _FILE, dense.asked_sha256)
    measured = {key: known[key] for key in keys if key in known}
    for found, key in zip(compared.points, keys, strict=True):
        if key not in measured:
            measured[key] = _point(found, key[1], dense, watcher, out)
            _write(out / _FILE, compared, dense, list(measured.values()))
    return _write(out / _FILE, compared, dense, [measured[key] for key in keys])


def _checked(base: Mapping[str, Any], methods: Sequence[str], ratios: Sequence[float]) -> Recipe:
    """What all points have in common; wrong names and ratios are told before any work."""
    recipes = [
        make_recipe({**base, "method": method, "ratio": ratio})
        for method in methods
        for ratio in ratios
    ]
    with plugin_files(recipes[0].plugins):
        for method in methods:
            installed_plugins().quantizers.get(method)
    return recipes[0]


def _dense(recipe: Recipe, watcher: Watcher) -> _Dense:
    device = parse_device(recipe.device)
    with plugin_files(recipe.plugins):
        opened = find_model(
            recipe.model,
            watcher,
            weights=recipe.weights,
            checkpoint=recipe.checkpoint,
            seed=recipe.seed,
        )
    spec = recipe.data or default_data(opened.name)
    if spec is None:
        raise UsageError(f"{opened.name} has no data of its own here: give --data imagefolder:PATH")
    data = open_data(spec, opened.module, images=recipe.images, own_labels=True)
    with watcher.images("features of the dense model") as steps:
        features = extract_features(opened.module, opened.name, data, device=device, progress=steps)
    with watcher.images("searching by the dense model") as steps:
        retrieval = retrieve(features, device=device, progress=steps)
    asked = canonical_json([opened.weights_sha256, spec, recipe.images, version("vqzoo")])
    return _Dense(data, features, retrieval, device, recipe.plugins, sha256_text(asked))


def _write(
    path: Path, compared: Comparison, dense: _Dense, points: list[RetrievalPoint]
) -> RetrievalComparison:
    comparison = RetrievalComparison(
        model=compared.model,
        layers=compared.layers,
        data=dense.retrieval.data,
        images=dense.retrieval.images,
        queries=dense.retrieval.queries,
        dense_map=dense.retrieval.map,
        asked_sha256=dense.asked_sha256,
        points=points,
    )
    write_text(path, json.dumps(asdict(comparison), indent=2, allow_nan=False) + "\n")
    return comparison


def _known(path: Path, asked: str) -> dict[tuple[str, str], RetrievalPoint]:
    """The points that an earlier call measured, by folder and sha256, if it asked the same."""
    if not path.is_file():
        return {}
    earlier = json.loads(path.read_text(encoding="utf-8"))
    if earlier["asked_sha256"] != asked:
        return {}
    return {(row["folder"], row["sha256"]): RetrievalPoint(**row) for row in earlier["points"]}


def _point(found: Point, sha256: str, dense: _Dense, watcher: Watcher, out: Path) -> RetrievalPoint:
    with watcher.phase(f"loading {found.folder}"):
        model = load(out / found.folder, plugins=dense.plugins)
    with watcher.images(f"features of {found.folder}") as steps:
        features = extract_features(
            model, found.folder, dense.data, device=dense.device, progress=steps
        )
    with watcher.images(f"searching by {found.folder}") as steps:
        beside = beside_dense(
            dense.features, dense.retrieval, features, device=dense.device, progress=steps
        )
    crossed, crossed_change = beside.asymmetric, beside.asymmetric_change
    if crossed is None or crossed_change is None:
        raise ValueError(f"{found.folder} has features of another width than its dense model")
    return RetrievalPoint(
        method=found.method,
        ratio_layers=found.ratio_layers,
        ratio_file=found.ratio_file,
        map=beside.compressed.map,
        change=beside.change.points,
        ci95=beside.change.half_width,
        asymmetric_map=crossed.map,
        asymmetric_change=crossed_change.points,
        asymmetric_ci95=crossed_change.half_width,
        folder=found.folder,
        sha256=sha256,
    )

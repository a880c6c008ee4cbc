"""Compare methods by retrieval at several ratios, as in Gong et al. 2014."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from vqzoo.artifact.files import canonical_json, sha256_file, sha256_text, write_text
from vqzoo.artifact.schema import WEIGHTS_FILE
from vqzoo.comparison.accuracy import Comparison, Point, compare
from vqzoo.data.evaluation_data import Data, open_data
from vqzoo.data.sources import ReadOptions
from vqzoo.errors import UsageError
from vqzoo.evaluation.retrieval import Features, Retrieval, beside_dense, extract_features, retrieve
from vqzoo.models.dense import find_model
from vqzoo.models.embedded import default_data
from vqzoo.network.load import load
from vqzoo.page.retrieval_points import RETRIEVAL_FILE
from vqzoo.plugin.files import plugin_files
from vqzoo.plugin.manager import installed_plugins
from vqzoo.progress import Watcher
from vqzoo.runs.fields.reading import reading_fields
from vqzoo.runs.prepare import parse_device
from vqzoo.runs.recipe import Recipe, make_recipe


@dataclass(frozen=True)
class RetrievalPoint:
    """One artifact of a comparison; method, ratios and folder are those of its `Point`.

    Attributes:
        map: mean average precision in percent.
        change: `map` minus that of the dense model, in points.
        ci95: half-width of the 95% confidence interval of `change`, paired over queries.
        asymmetric_map: mean average precision of the artifact's features as queries in the dense
            model's database.
        asymmetric_change: `asymmetric_map` minus `map` of the dense model, in points.
        asymmetric_ci95: half-width of the 95% confidence interval of `asymmetric_change`.
        sha256: sha256 of the artifact's weights file.
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
    """The points of a comparison, and the dense model's mAP on the same queries in percent.

    `asked_sha256` identifies what was measured: the dense weights, the data, the number of images
    and the version of vqzoo.
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
    """The dense model, measured, and the images that every point shares with it."""

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
    executor: Executor | None = None,
) -> RetrievalComparison:
    """Run `compare`, then measure retrieval by each of its artifacts, read back from disk.

    Artifacts under `out` are reused as in `compare`, and so are the points in `retrieval.json`.

    Args:
        base: fields of a `Recipe` without method, options and ratio.
        methods: names of the methods, at least one.
        ratios: target ratios of the compressed layers, at least one.
        watcher: receives progress.
        out: the folder for artifacts, compare.json and retrieval.json.
        force: replace artifacts under `out` that another request made.
        executor: makes the artifacts; retrieval is measured in this process.

    Raises:
        UsageError: as `compare`, and if the model gives no features or the data has no labels.
        NothingCompressed: no method compressed any layer.
        VqzooError: a run failed.
    """
    dense = _measure_dense(_common_recipe(base, methods, ratios), watcher)
    comparison = compare(base, methods, ratios, watcher, out, force=force, executor=executor)
    keys = [
        (point.folder, sha256_file(out / point.folder / WEIGHTS_FILE))
        for point in comparison.points
    ]
    earlier = _earlier_points(out / RETRIEVAL_FILE, dense.asked_sha256)
    measured = {key: earlier[key] for key in keys if key in earlier}
    for point, key in zip(comparison.points, keys, strict=True):
        if key not in measured:
            measured[key] = measure_point(point, key[1], dense, watcher, out)
            _write(out / RETRIEVAL_FILE, comparison, dense, list(measured.values()))
    return _write(out / RETRIEVAL_FILE, comparison, dense, [measured[key] for key in keys])


def _common_recipe(
    base: Mapping[str, Any], methods: Sequence[str], ratios: Sequence[float]
) -> Recipe:
    """A recipe with the fields that all points share.

    Raises:
        UsageError: a name or a ratio is invalid; nothing has been computed yet.
    """
    recipes = [
        make_recipe({**base, "method": method, "ratio": ratio})
        for method in methods
        for ratio in ratios
    ]
    with plugin_files(recipes[0].plugins):
        for method in methods:
            installed_plugins().quantizers.get(method)
    return recipes[0]


def _measure_dense(recipe: Recipe, watcher: Watcher) -> _Dense:
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
        raise UsageError(f"vqzoo has no images for {opened.name}: give --data imagefolder:PATH")
    read = ReadOptions(recipe.class_map, recipe.skip_unreadable)
    with watcher.phase("opening the images"):
        data = open_data(spec, opened.module, images=recipe.images, own_labels=True, read=read)
    with watcher.images("extracting features of the dense model") as steps:
        features = extract_features(opened.module, opened.name, data, device=device, progress=steps)
    with watcher.images("searching with the dense model") as steps:
        retrieval = retrieve(features, device=device, progress=steps)
    request: list[Any] = [opened.weights_sha256, spec, recipe.images, version("vqzoo")]
    request += filter(None, [reading_fields(recipe.class_map, recipe.skip_unreadable)])
    digest = sha256_text(canonical_json(request))
    return _Dense(data, features, retrieval, device, recipe.plugins, digest)


def _write(
    path: Path, accuracies: Comparison, dense: _Dense, points: list[RetrievalPoint]
) -> RetrievalComparison:
    comparison = RetrievalComparison(
        model=accuracies.model,
        layers=accuracies.layers,
        data=dense.retrieval.data,
        images=dense.retrieval.images,
        queries=dense.retrieval.queries,
        dense_map=dense.retrieval.map,
        asked_sha256=dense.asked_sha256,
        points=points,
    )
    write_text(path, json.dumps(asdict(comparison), indent=2, allow_nan=False) + "\n")
    return comparison


def _earlier_points(path: Path, asked_sha256: str) -> dict[tuple[str, str], RetrievalPoint]:
    """The points that an earlier call of the same request measured, by folder and sha256."""
    if not path.is_file():
        return {}
    earlier = json.loads(path.read_text(encoding="utf-8"))
    if earlier["asked_sha256"] != asked_sha256:
        return {}
    return {(row["folder"], row["sha256"]): RetrievalPoint(**row) for row in earlier["points"]}


def measure_point(
    point: Point, sha256: str, dense: _Dense, watcher: Watcher, out: Path
) -> RetrievalPoint:
    with watcher.phase(f"loading {point.folder}"):
        model = load(out / point.folder, plugins=dense.plugins)
    with watcher.images(f"extracting features of {point.folder}") as steps:
        features = extract_features(
            model, point.folder, dense.data, device=dense.device, progress=steps
        )
    with watcher.images(f"searching with {point.folder}") as steps:
        beside = beside_dense(
            dense.features, dense.retrieval, features, device=dense.device, progress=steps
        )
    asymmetric, asymmetric_change = beside.asymmetric, beside.asymmetric_change
    if asymmetric is None or asymmetric_change is None:
        raise ValueError(f"the features of {point.folder} do not have the dense model's width")
    return RetrievalPoint(
        method=point.method,
        ratio_layers=point.ratio_layers,
        ratio_file=point.ratio_file,
        map=beside.compressed.map,
        change=beside.change.points,
        ci95=beside.change.half_width,
        asymmetric_map=asymmetric.map,
        asymmetric_change=asymmetric_change.points,
        asymmetric_ci95=asymmetric_change.half_width,
        folder=point.folder,
        sha256=sha256,
    )

"""Compare methods by accuracy at several ratios, as in Gong et al. 2014, figure 3."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from vqzoo.artifact.files import write_text
from vqzoo.errors import NothingCompressed, VqzooError
from vqzoo.execution.cell import Cell
from vqzoo.execution.run_cells import run_cells
from vqzoo.plugin.execution.engine import WorkerLost
from vqzoo.plugin.files import plugin_files
from vqzoo.plugin.manager import installed_plugins
from vqzoo.progress import Watcher
from vqzoo.report.record import Record
from vqzoo.runs.recipe import Recipe, make_recipe
from vqzoo.storage.shared import SharedFolder


@dataclass(frozen=True)
class Point:
    """One artifact of a comparison, measured after it was read back from disk.

    Attributes:
        method: name of the method, followed by ", calibrated" or ", fine-tuned" where applicable.
        ratio_layers: compression ratio of the compressed layers, every stored byte counted.
        ratio_file: compression ratio of the whole file.
        top1: top-1 accuracy in percent; None without labelled images.
        change: `top1` minus that of the dense model, in points.
        ci95: half-width of the 95% confidence interval of `change`, from paired differences.
        row_sqnr_db: mean SQNR in dB, rows counting alike, over the compressed layers that are not
            exact; None if all are exact.
        folder: name of the artifact's folder.
    """

    method: str
    ratio_layers: float
    ratio_file: float
    top1: float | None
    change: float | None
    ci95: float | None
    row_sqnr_db: float | None
    folder: str


@dataclass(frozen=True)
class Comparison:
    """The points of a comparison, and the dense model's top-1 on the same images in percent."""

    model: str
    layers: str
    data: str | None
    images: int
    dense_top1: float | None
    points: list[Point]


def compare(
    base: Mapping[str, Any],
    methods: Sequence[str],
    ratios: Sequence[float],
    watcher: Watcher,
    out: Path,
    *,
    force: bool = False,
    executor: Executor | None = None,
) -> Comparison:
    """Run every method at every ratio, each into its own folder under `out`.

    Artifacts that an earlier call finished are reused. Ratios at which a method reaches the same
    size give one point. A method that compresses no layer at a ratio (some take none) has no point
    there. If `base` asks for calibration or fine-tuning, every point is made without it and with
    it.

    Args:
        base: fields of a `Recipe` without method, options and ratio.
        methods: names of the methods, at least one.
        ratios: target ratios of the compressed layers, at least one.
        watcher: receives progress.
        out: the folder for artifacts and for compare.json.
        force: replace artifacts under `out` that another request made.
        executor: makes the artifacts; None makes them one after another in this process.

    Raises:
        UsageError: a name is unknown, or another request made an artifact under `out`.
        NothingCompressed: no method compressed any layer.
        VqzooError: a run failed.
    """
    out.mkdir(parents=True, exist_ok=True)
    shared = None if executor is None else SharedFolder(out / "shared")
    cells: dict[str, tuple[Cell, str]] = {}
    for method, (suffix, fields) in product(methods, _variants(base).items()):
        label = method + suffix
        for ratio in ratios:
            recipe = make_recipe({**base, **fields, "method": method, "ratio": ratio})
            cell = _cell(f"{label} at {ratio:g}x", recipe, out, shared, force)
            cells[cell.name] = (cell, label)
    records: dict[str, Record] = {}
    waiting = [cell for cell, _ in cells.values()]
    with plugin_files(waiting[0].recipe.plugins):
        plugins = installed_plugins()
    for cell, outcome in run_cells(waiting, executor, plugins, watcher):
        if outcome.record is not None:
            records[cell.name] = outcome.record
        elif isinstance(outcome.error, NothingCompressed):
            watcher.say(f"{cell.name} is left out: {outcome.error}")
        elif isinstance(outcome.error, WorkerLost):
            raise VqzooError(f"{cell.name}: {outcome.error}")
        elif outcome.error is not None:
            raise outcome.error
    if not records:
        raise NothingCompressed("no method compressed any layer at these ratios")
    points: list[Point] = []
    for name, (cell, label) in cells.items():
        if name in records:
            point = _point(records[name], label, cell.folder.name)
            if all((p.method, p.ratio_layers) != (label, point.ratio_layers) for p in points):
                points.append(point)
    last = cells[[name for name in cells if name in records][-1]][0]
    record, accuracy = records[last.name], records[last.name].accuracy
    if accuracy is not None and accuracy.labels is not None:
        watcher.say(f"{accuracy.data}: {accuracy.labels}")
    comparison = Comparison(
        model=record.model,
        layers=",".join(last.recipe.layers),
        data=accuracy.data if accuracy else None,
        images=accuracy.images if accuracy else 0,
        dense_top1=accuracy.dense.top1 if accuracy else None,
        points=points,
    )
    write_text(
        out / "compare.json", json.dumps(asdict(comparison), indent=2, allow_nan=False) + "\n"
    )
    return comparison


def _cell(name: str, recipe: Recipe, out: Path, shared: SharedFolder | None, force: bool) -> Cell:
    """The cell of a point, "pq, calibrated at 8x"."""
    folder = name.replace(" at ", "-").replace(":", "-").replace(", ", "-")
    log = out / "logs" / f"{folder}.log"
    return Cell(name, recipe, out / folder, log, shared, force)


def _variants(base: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Suffixes of a method's name, each with the recipe fields that it stands for."""
    fields: dict[str, Any] = {"calibrate": None, "finetune": None}
    variants, suffix = {"": fields}, ""
    for name, word in (("calibrate", ", calibrated"), ("finetune", ", fine-tuned")):
        if base.get(name):
            suffix, fields = suffix + word, {**fields, name: base[name]}
            variants[suffix] = fields
    return variants


def largest_ratios(comparison: Comparison, loss: float) -> dict[str, float]:
    """The largest ratio of the layers at which each method loses less than `loss` points."""
    largest: dict[str, float] = {}
    for point in comparison.points:
        if point.change is not None and point.change > -loss:
            largest[point.method] = max(largest.get(point.method, 0.0), point.ratio_layers)
    return largest


def _point(record: Record, method: str, folder: str) -> Point:
    accuracy = record.accuracy
    errors = [layer.row_sqnr_db for layer in record.layers if layer.row_sqnr_db is not None]
    return Point(
        method=method,
        ratio_layers=record.ratio.layers,
        ratio_file=record.ratio.file,
        top1=accuracy.compressed.top1 if accuracy else None,
        change=accuracy.difference.top1 if accuracy else None,
        ci95=accuracy.difference.ci95 if accuracy else None,
        row_sqnr_db=sum(errors) / len(errors) if errors else None,
        folder=folder,
    )

"""Compare methods by accuracy at several ratios, as in Gong et al. 2014, figure 3."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from vqzoo.artifact.files import write_text
from vqzoo.errors import NothingCompressed
from vqzoo.progress import Watcher
from vqzoo.report.record import Record
from vqzoo.runs.recipe import make_recipe
from vqzoo.runs.run import run


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

    Raises:
        UsageError: a name is unknown, or another request made an artifact under `out`.
        NothingCompressed: no method compressed any layer.
        VqzooError: a run failed.
    """
    out.mkdir(parents=True, exist_ok=True)
    points: list[Point] = []
    record: Record | None = None
    for method, (suffix, fields) in product(methods, _variants(base).items()):
        label = method + suffix
        for ratio in ratios:
            watcher.say(f"{label} at {ratio:g}x")
            name = f"{label}-{ratio:g}x".replace(":", "-").replace(", ", "-")
            folder = out / name
            recipe = make_recipe({**base, **fields, "method": method, "ratio": ratio})
            try:
                record = run(recipe, watcher, out=folder, reuse=True, force=force).record
            except NothingCompressed as error:
                watcher.say(f"{label} at {ratio:g}x is left out: {error}")
                continue
            point = _point(record, label, folder.name)
            if all((p.method, p.ratio_layers) != (label, point.ratio_layers) for p in points):
                points.append(point)
    if record is None:
        raise NothingCompressed("no method compressed any layer at these ratios")
    accuracy = record.accuracy
    if accuracy is not None and accuracy.labels is not None:
        watcher.say(f"{accuracy.data}: {accuracy.labels}")
    comparison = Comparison(
        model=record.model,
        layers=",".join(recipe.layers),
        data=accuracy.data if accuracy else None,
        images=accuracy.images if accuracy else 0,
        dense_top1=accuracy.dense.top1 if accuracy else None,
        points=points,
    )
    write_text(
        out / "compare.json", json.dumps(asdict(comparison), indent=2, allow_nan=False) + "\n"
    )
    return comparison


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

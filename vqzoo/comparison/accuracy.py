"""Several methods at several ratios on one model: the curves of Gong et al. 2014, figure 3."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from vqzoo.artifact.files import write_text
from vqzoo.errors import NothingCompressed
from vqzoo.progress import Watcher
from vqzoo.runs.recipe import make_recipe
from vqzoo.runs.run import run


@dataclass(frozen=True)
class Point:
    """One artifact of a comparison, measured as it was read back from disk.

    Attributes:
        method: how it was made, with ", calibrated" or ", fine-tuned" behind it where it was.
        ratio_layers: every stored byte of the compressed layers counted.
        ratio_file: of the whole file.
        top1: percent; None where nothing was measured.
        change: against the dense model, in points.
        ci95: half-width of the change's 95% confidence interval, from paired differences.
        row_sqnr_db: mean over the compressed layers that are not exact, rows counting alike; None
            where all are exact.
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
    """The points, and what the dense model reaches on the same images (percent)."""

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
    """Run every method at every ratio, each into a folder of its own under `out`.

    Artifacts that an earlier call finished are taken as they are. A coarse method reaches the same
    size for several of the ratios asked: that is one point. A method that compresses no layer at a
    ratio (some take none) is left out there. Where `base` says how to calibrate or to fine-tune,
    every point is made without and with it.

    Args:
        base: fields of a `Recipe` without method, options and ratio.
        methods: at least one.
        ratios: at least one.
        force: replace artifacts that lie there and were made otherwise.

    Raises:
        UsageError: a name is unknown, or an artifact lies there that was made otherwise.
        NothingCompressed: no method compressed any layer.
        VqzooError: a run failed.
    """
    out.mkdir(parents=True, exist_ok=True)
    points: list[Point] = []
    record: dict[str, Any] = {}
    for method, (words, extra) in product(methods, _variants(base).items()):
        label = method + words
        for ratio in ratios:
            watcher.say(f"{label} at {ratio:g}x")
            name = f"{label}-{ratio:g}x".replace(":", "-").replace(", ", "-")
            folder = out / name
            recipe = make_recipe({**base, **extra, "method": method, "ratio": ratio})
            try:
                record = run(recipe, watcher, out=folder, reuse=True, force=force).record
            except NothingCompressed as error:
                watcher.say(f"{label} at {ratio:g}x is left out: {error}")
                continue
            point = _point(record, label, folder.name)
            if all((p.method, p.ratio_layers) != (label, point.ratio_layers) for p in points):
                points.append(point)
    if not points:
        raise NothingCompressed("no method compressed any layer at these ratios")
    accuracy = record["accuracy"] or {}
    comparison = Comparison(
        model=record["model"],
        layers=",".join(recipe.layers),
        data=accuracy.get("data"),
        images=accuracy.get("images", 0),
        dense_top1=accuracy["dense"]["top1"] if accuracy else None,
        points=points,
    )
    write_text(
        out / "compare.json", json.dumps(asdict(comparison), indent=2, allow_nan=False) + "\n"
    )
    return comparison


def _variants(base: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What is put behind a method's name -> the fields of the recipe that say how it is helped."""
    found: dict[str, dict[str, Any]] = {"": {"calibrate": None, "finetune": None}}
    words, fields = "", found[""]
    for name, word in (("calibrate", ", calibrated"), ("finetune", ", fine-tuned")):
        if base.get(name):
            words, fields = words + word, {**fields, name: base[name]}
            found[words] = fields
    return found


def largest_ratios(comparison: Comparison, lost: float) -> dict[str, float]:
    """How small each method makes the layers while it loses less than `lost` points of top-1."""
    largest: dict[str, float] = {}
    for point in comparison.points:
        if point.change is not None and point.change > -lost:
            largest[point.method] = max(largest.get(point.method, 0.0), point.ratio_layers)
    return largest


def _point(record: Mapping[str, Any], method: str, folder: str) -> Point:
    accuracy = record["accuracy"]
    errors = [row["row_sqnr_db"] for row in record["layers"] if row["row_sqnr_db"] is not None]
    return Point(
        method=method,
        ratio_layers=record["ratio"]["layers"],
        ratio_file=record["ratio"]["file"],
        top1=accuracy["compressed"]["top1"] if accuracy else None,
        change=accuracy["difference"]["top1"] if accuracy else None,
        ci95=accuracy["difference"]["ci95"] if accuracy else None,
        row_sqnr_db=sum(errors) / len(errors) if errors else None,
        folder=folder,
    )

"""Folders with nothing but report.json, made from the record of a real run."""

import json
from pathlib import Path
from typing import Any

HOSTILE = "</script><img src=x onerror=alert(1)><!--\u2028{{script}}"


def write_report(folder: Path, record: dict[str, Any], **changes: Any) -> None:
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps({**record, **changes}))


def write_reports(folder: Path, record: dict[str, Any]) -> None:
    """Three runs of two networks by two methods; the text of the last is hostile."""
    layers = record["layers"]
    accuracy = {
        "data": "fmnist",
        "images": 1000,
        "dense": {"top1": 93.0, "top5": 99.0},
        "compressed": {"top1": 92.5, "top5": 99.0},
        "difference": {"top1": -0.5, "ci95": 0.25},
    }
    worse = {
        **accuracy,
        "compressed": {"top1": 90.0, "top5": 98.0},
        "difference": {"top1": -3.0, "ci95": 0.5},
    }
    agreement = {"data": "fmnist", "images": 1000, "top1": 97.0, "kl": 0.02, "logit_change": 0.5}
    sizes = record["bytes"]
    small = {**sizes, "file": sizes["file"] // 2}
    write_report(folder / "first", record, model="one.tag", accuracy=accuracy, agreement=agreement)
    write_report(folder / "deep/second", record, model="two.tag", accuracy=worse, bytes=small)
    strange = [{**layers[0], "name": HOSTILE, "method": HOSTILE}, *layers[1:]]
    write_report(
        folder / "third", record, model=HOSTILE, command=HOSTILE, layers=strange,
        skipped={HOSTILE: HOSTILE}, accuracy=accuracy,
    )  # fmt: skip

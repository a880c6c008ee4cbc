"""Curves of divergence against bytes, and what one takes of the bytes of another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_MARKERS = "osD^vP*X<>"
_NAMES = {"size": "vqzoo --size", "nncodec": "NNCodec", "palettes": "coreai-opt palettes"}
_PEERS = ("nncodec", "palettes")


@dataclass(frozen=True)
class Point:
    """A file of a network.

    Attributes:
        kind: the curve that it belongs to.
        label: the curve and the setting.
        bytes: of the file.
        kl: mean divergence from the dense network's answers, nats.
        kl_error: half-width of its 95% confidence interval.
        change: of top-1, in points; None without labels.
        change_error: half-width of its 95% confidence interval.
        seconds: it took.
    """

    kind: str
    label: str
    bytes: int
    kl: float
    kl_error: float
    change: float | None
    change_error: float | None
    seconds: float


def share_of(reference: Sequence[Point], point: Point) -> float | None:
    """A point's share of the bytes that another curve takes for the same KL.

    Logarithms of bytes are interpolated over the logarithm of KL; None outside of the curve, and
    for its own points.
    """
    known = sorted((p for p in reference if p.kl > 0), key=lambda p: p.kl)
    if point.kl <= 0 or point.kind in {p.kind for p in known} or len(known) < 2:
        return None
    if not known[0].kl <= point.kl <= known[-1].kl:
        return None
    place = np.interp(
        math.log(point.kl),
        [math.log(p.kl) for p in known],
        [math.log(p.bytes) for p in known],
    )
    return point.bytes / math.exp(float(place))


def draw(model: str, points: Sequence[Point], path: Path) -> None:
    """Plot KL against bytes, both by logarithms; peers are dashed."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    for place, kind in enumerate(dict.fromkeys(point.kind for point in points)):
        curve = sorted((p for p in points if p.kind == kind), key=lambda p: p.bytes)
        axes.errorbar(
            [p.bytes / 1e6 for p in curve],
            [p.kl for p in curve],
            yerr=[min(p.kl_error, 0.99 * p.kl) for p in curve],
            label=_NAMES.get(kind, kind),
            marker=_MARKERS[place % len(_MARKERS)],
            linestyle="--" if kind in _PEERS else "-",
            markersize=5,
            capsize=2,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("file, MB")
    axes.set_ylabel("KL from the dense network's answers, nats")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend()
    figure.suptitle(model)
    figure.savefig(path, dpi=110)

"""Plots of comparisons."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vqzoo.artifact.files import new_file
from vqzoo.comparison.accuracy import Comparison
from vqzoo.comparison.retrieval import RetrievalComparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "osD^vP*X"
# The second panel shows this many points of accuracy or mAP below the dense model.
_ZOOM_POINTS = 6.0


@dataclass(frozen=True)
class _Point:
    """A value at a ratio, with the half-width of its 95% confidence interval."""

    method: str
    ratio: float
    value: float
    ci95: float


def draw(comparison: Comparison, path: Path) -> None:
    """Plot top-1 against the ratio of the layers, with 95% confidence intervals.

    The dense model is a dashed line. If a method falls far below it, a second panel shows the
    neighbourhood of that line. Without accuracies the plot shows the SQNR of the weights.
    """
    dense = comparison.dense_top1
    points = [
        _Point(
            p.method,
            p.ratio_layers,
            (p.row_sqnr_db if dense is None else p.top1) or 0.0,
            0.0 if dense is None else p.ci95 or 0.0,
        )
        for p in comparison.points
    ]
    label = "SQNR of the weights, rows counting alike (dB)"
    if dense is not None:
        label = f"top-1 accuracy (%), {comparison.images:,} images of {comparison.data}"
    _plot(points, dense, label, _title(comparison), path)


def draw_retrieval(comparison: RetrievalComparison, path: Path) -> None:
    """Plot the mAP of retrieval as `draw` plots top-1."""
    points = [_Point(p.method, p.ratio_layers, p.map, p.ci95) for p in comparison.points]
    label = f"retrieval mAP (%), {comparison.queries:,} queries of {comparison.data}"
    _plot(points, comparison.dense_map, label, _title(comparison), path)


def _title(comparison: Comparison | RetrievalComparison) -> str:
    return f"{comparison.model}: {comparison.layers} layers compressed"


def _plot(
    points: Sequence[_Point], dense: float | None, label: str, title: str, path: Path
) -> None:
    from matplotlib.figure import Figure

    lowest = min((point.value for point in points), default=0.0)
    panels = 2 if dense is not None and dense - lowest > 2 * _ZOOM_POINTS else 1
    figure = Figure(figsize=(1 + 6.5 * panels, 5), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for panel in axes:
        _curves(panel, points, dense)
    axes[0].set_ylabel(label)
    if dense is not None and panels == 2:
        axes[1].set_ylim(dense - _ZOOM_POINTS, dense + 1)
        axes[1].set_title(f"within {_ZOOM_POINTS:g} points of the dense model", fontsize="medium")
    axes[0].legend()
    figure.suptitle(title)
    figure.supxlabel("compression ratio of the compressed layers: fp32 bytes / bytes on disk")
    with new_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})


def _curves(axes: "Axes", points: Sequence[_Point], dense: float | None) -> None:
    """Draw one line for each method."""
    methods = list(dict.fromkeys(point.method for point in points))
    for method, marker in zip(methods, _MARKERS * len(methods), strict=False):
        line = sorted((p for p in points if p.method == method), key=lambda p: p.ratio)
        axes.errorbar(
            [p.ratio for p in line],
            [p.value for p in line],
            yerr=None if dense is None else [p.ci95 for p in line],
            marker=marker,
            markersize=5,
            linewidth=1.5,
            capsize=3,
            label=method,
        )
    if dense is not None:
        label = f"dense, {dense:.2f}%"
        axes.axhline(dense, color="black", linewidth=1, linestyle="--", label=label)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.grid(alpha=0.3)

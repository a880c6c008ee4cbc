"""The curves of a comparison as a picture."""

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


_CLOSE_POINTS = 6.0  # of accuracy or mAP: what a closer look shows


@dataclass(frozen=True)
class _Point:
    """`value` at `ratio`, `ci95` of it either way."""

    method: str
    ratio: float
    value: float
    ci95: float


def draw(comparison: Comparison, path: Path) -> None:
    """Top-1 against `ratio.layers` with 95% confidence intervals; the dense model as a line.

    A second panel looks closer where a method falls far behind. Where nothing was measured, the
    error of the weights takes the place of the accuracy.
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
    label = "SQNR of the weights, rows alike (dB)"
    if dense is not None:
        label = f"top-1 accuracy (%), {comparison.images:,} images of {comparison.data}"
    _picture(points, dense, label, f"{comparison.model}: {comparison.layers}", path)


def draw_retrieval(comparison: RetrievalComparison, path: Path) -> None:
    """mAP of retrieval, drawn as `draw` does top-1."""
    points = [_Point(p.method, p.ratio_layers, p.map, p.ci95) for p in comparison.points]
    label = f"retrieval mAP (%), {comparison.queries:,} queries of {comparison.data}"
    _picture(points, comparison.dense_map, label, f"{comparison.model}: {comparison.layers}", path)


def _picture(
    points: Sequence[_Point], dense: float | None, label: str, what: str, path: Path
) -> None:
    from matplotlib.figure import Figure

    lowest = min((point.value for point in points), default=0.0)
    panels = 2 if dense is not None and dense - lowest > 2 * _CLOSE_POINTS else 1
    figure = Figure(figsize=(1 + 6.5 * panels, 5), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for panel in axes:
        _curves(panel, points, dense)
    axes[0].set_ylabel(label)
    if dense is not None and panels == 2:
        axes[1].set_ylim(dense - _CLOSE_POINTS, dense + 1)
        axes[1].set_title(f"the same, within {_CLOSE_POINTS:g} points", fontsize="medium")
    axes[0].legend()
    figure.suptitle(f"{what} layers compressed")
    figure.supxlabel("size of the compressed layers: fp32 bytes over bytes on disk")
    with new_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})


def _curves(axes: "Axes", points: Sequence[_Point], dense: float | None) -> None:
    """One line a method."""
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

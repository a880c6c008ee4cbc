"""The curves of a comparison as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING

from vqzoo.zoo.compare import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "osD^vP*X"


_CLOSE_POINTS = 6.0  # of top-1: what a closer look shows


def draw(comparison: Comparison, path: Path) -> None:
    """Top-1 against `ratio.layers` with 95% confidence intervals; the dense model as a line.

    A second panel looks closer where a method falls far behind. Where nothing was measured, the
    error of the weights takes the place of the accuracy.
    """
    from matplotlib.figure import Figure

    dense = comparison.dense_top1
    lowest = min((p.top1 for p in comparison.points if p.top1 is not None), default=0.0)
    panels = 2 if dense is not None and dense - lowest > 2 * _CLOSE_POINTS else 1
    figure = Figure(figsize=(1 + 6.5 * panels, 5), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for panel in axes:
        _curves(panel, comparison)
    if dense is None:
        axes[0].set_ylabel("SQNR of the weights, rows alike (dB)")
    else:
        axes[0].set_ylabel(f"top-1 accuracy (%), {comparison.images:,} images of {comparison.data}")
        if panels == 2:
            axes[1].set_ylim(dense - _CLOSE_POINTS, dense + 1)
            axes[1].set_title(f"the same, within {_CLOSE_POINTS:g} points", fontsize="medium")
    axes[0].legend()
    figure.suptitle(f"{comparison.model}: {comparison.layers} layers compressed")
    figure.supxlabel("size of the compressed layers: fp32 bytes over bytes on disk")
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _curves(axes: "Axes", comparison: Comparison) -> None:
    """One line a method."""
    measured = comparison.dense_top1 is not None
    methods = list(dict.fromkeys(point.method for point in comparison.points))
    for method, marker in zip(methods, _MARKERS * len(methods), strict=False):
        points = sorted(
            (p for p in comparison.points if p.method == method), key=lambda p: p.ratio_layers
        )
        axes.errorbar(
            [p.ratio_layers for p in points],
            [(p.top1 if measured else p.row_sqnr_db) or 0.0 for p in points],
            yerr=[p.ci95 or 0.0 for p in points] if measured else None,
            marker=marker,
            markersize=5,
            linewidth=1.5,
            capsize=3,
            label=method,
        )
    if comparison.dense_top1 is not None:
        label = f"dense, {comparison.dense_top1:.2f}%"
        axes.axhline(comparison.dense_top1, color="black", linewidth=1, linestyle="--", label=label)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.grid(alpha=0.3)

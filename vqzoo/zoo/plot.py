"""The curves of a comparison as a picture."""

from pathlib import Path

from vqzoo.zoo.compare import Comparison

_MARKERS = "osD^vP*X"


def draw(comparison: Comparison, path: Path) -> None:
    """Top-1 against `ratio.layers` with 95% confidence intervals; the dense model as a line.

    Where nothing was measured, the error of the weights takes the place of the accuracy.
    """
    from matplotlib.figure import Figure

    measured = comparison.dense_top1 is not None
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
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
        axes.axhline(comparison.dense_top1, color="black", linewidth=1, linestyle="--")
        axes.annotate(
            f"dense, {comparison.dense_top1:.2f}%",
            (1.0, comparison.dense_top1),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 4),
            textcoords="offset points",
            ha="right",
        )
        axes.set_ylabel(f"top-1 accuracy (%), {comparison.images:,} images of {comparison.data}")
    else:
        axes.set_ylabel("SQNR of the weights, rows alike (dB)")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.set_xlabel("size of the compressed layers: fp32 bytes over bytes on disk")
    axes.set_title(f"{comparison.model}, all else left dense")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120, metadata={"Software": None})

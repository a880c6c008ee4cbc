"""The plot of a budget: where the bits went."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from vqzoo.report.formatting import count_of, printable_label
from vqzoo.report.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BARS = 24
_NAMED = 6  # points of the scatter plot that have names
_NAME = (300, 12)  # pixels that a name takes
# Okabe and Ito 2008: apart for colour-blind readers as well.
_COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999")


@dataclass(frozen=True)
class _Point:
    """A layer: its method, its bytes, and its predicted loss in squared logits."""

    name: str
    method: str
    bytes: int
    loss: float


def draw_budget(record: Record, target: Path | IO[bytes]) -> None:
    """Draw bytes against predicted loss by layer, and the layers of most bytes as bars.

    With more than 24 layers the smaller ones share a bar. The PNG depends on the record alone.

    Args:
        record: it has a budget.
        target: the file to write.
    """
    from matplotlib.figure import Figure

    points = _points(record)
    if not points:
        return
    by_bytes = sorted(points, key=lambda point: -point.bytes)
    totals: dict[str, int] = {}
    for point in by_bytes:
        totals[point.method] = totals.get(point.method, 0) + point.bytes
    methods = sorted(totals, key=lambda name: -totals[name])
    colors = {name: _COLORS[min(i, len(_COLORS) - 1)] for i, name in enumerate(methods)}
    bars = min(len(points), _BARS)
    figure = Figure(figsize=(12, max(4.5, 1.2 + 0.24 * bars)), layout="constrained")
    scatter, bar = figure.subplots(1, 2)
    _draw_scatter(scatter, points, colors, assumed=record.calibration is None)
    _draw_bars(bar, by_bytes, colors)
    assert record.budget is not None
    figure.suptitle(
        f"Where the bits went: {record.bytes.file:,} bytes at λ = {record.budget.price:g}",
        fontsize=11,
    )
    figure.draw_without_rendering()  # lays out, so that distances are known
    _name_points(scatter, points)
    figure.savefig(target, format="png", dpi=100, facecolor="white", metadata={"Software": None})


def _points(record: Record) -> list[_Point]:
    losses = {} if record.budget is None else record.budget.layers
    return [
        _Point(printable_label(row.name), row.method_text, row.bytes, losses[row.name])
        for row in record.layers
        if row.name in losses
    ]


def _draw_scatter(
    axes: "Axes", points: Sequence[_Point], colors: Mapping[str, str], *, assumed: bool
) -> None:
    smallest = min((point.loss for point in points if point.loss > 0), default=1.0)
    heights = {point.name: max(point.loss, smallest / 3) for point in points}
    for method, color in colors.items():
        chosen = [point for point in points if point.method == method]
        axes.scatter(
            [max(point.bytes, 1) for point in chosen],
            [heights[point.name] for point in chosen],
            s=26,
            color=color,
            alpha=0.8,
            linewidths=0,
            label=f"{printable_label(method)}: {count_of(len(chosen), 'layer')}",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(x=0.12, y=0.08)
    axes.set_xlabel("bytes of the layer")
    axes.set_ylabel(
        "assumed loss, without images" if assumed else "predicted loss (squared logits)"
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left")


def _name_points(axes: "Axes", points: Sequence[_Point]) -> None:
    """Write the names of the layers that lose most, but not over each other."""
    left, right = axes.transAxes.transform([(0, 0), (1, 0)])[:, 0]
    places: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: -point.loss):
        if point.loss <= 0 or len(places) == _NAMED:
            return
        x, y = axes.transData.transform((max(point.bytes, 1), point.loss))
        if any(abs(x - other) < _NAME[0] and abs(y - above) < _NAME[1] for other, above in places):
            continue
        places.append((x, y))
        on_the_left = x > (left + right) / 2
        axes.annotate(
            point.name,
            (max(point.bytes, 1), point.loss),
            xytext=(-6 if on_the_left else 6, 0),
            textcoords="offset points",
            horizontalalignment="right" if on_the_left else "left",
            verticalalignment="center",
            fontsize=8,
            parse_math=False,
        )


def _draw_bars(axes: "Axes", points: Sequence[_Point], colors: Mapping[str, str]) -> None:
    """One bar for each of the largest layers, and one for all others, divided by method."""
    shown = list(points) if len(points) <= _BARS else list(points[: _BARS - 1])
    others = points[len(shown) :]
    names = [point.name for point in shown]
    axes.barh(
        range(len(shown)),
        [point.bytes / 1e3 for point in shown],
        color=[colors[point.method] for point in shown],
    )
    if others:
        names.append(f"{len(others)} smaller layers")
        start = 0.0
        for method, color in colors.items():
            width = sum(point.bytes for point in others if point.method == method) / 1e3
            axes.barh(len(shown), width, left=start, color=color)
            start += width
    axes.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel("size (kB)")
    axes.grid(axis="x", alpha=0.3)

"""What the benchmarks found, as a table of ratios and a plot."""

import resource
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import matplotlib as mpl
import numpy as np
import torch
from torch.utils.benchmark import Timer

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.artist import Artist
from matplotlib.patches import Patch

_MARKERS = "os^Dvp*XP"


@dataclass(frozen=True)
class Result:
    layer: str
    task: str
    library: str
    seconds: float
    error: float
    """‖W - Ŵ‖²/‖W‖²."""
    peak: float | None
    """Peak memory above what was held before, in units of the weight; None where not measured."""
    share: float
    """Of the problem that was worked on; the time is divided by it."""


class PeakMemory:
    """The most memory held within the block, above what was held before it, in bytes."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._before = _resident()
        self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.002):
            self.peak = max(self.peak, _resident() - self._before)


def _resident() -> int:
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def sgemm_rate() -> float:
    """GFLOP/s of a large float32 matrix product, the best of some."""
    a = torch.randn(3072, 3072)
    timer = Timer("a @ a", globals={"a": a}, num_threads=torch.get_num_threads())
    return 2 * 3072**3 / min(timer.timeit(1).mean for _ in range(5)) / 1e9


def table(results: list[Result]) -> str:
    """A Markdown table, one line a task: what vqzoo took, and the others as multiples of it."""
    tasks: dict[tuple[str, str], list[Result]] = {}
    for r in results:
        tasks.setdefault((r.layer, r.task), []).append(r)
    rows = [("layer", "task", "vqzoo", "others: time and error, times vqzoo's")]
    for (layer, task), found in tasks.items():
        own = next((r for r in found if r.library == "vqzoo"), None)
        others = "; ".join(_against(r, own) for r in found if r is not own)
        rows.append((layer, task, "" if own is None else _figures(own), others))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def _figures(r: Result) -> str:
    """Seconds, error and peak of memory, as far as they were measured."""
    text = f"{'~' if r.share < 1 else ''}{r.seconds:.3g} s"
    text += f", error {r.error:.4g}" if r.error else ""
    return text + (f", peak {r.peak:.2f}" if r.peak is not None else "")


def _against(r: Result, own: Result | None) -> str:
    if own is None:
        return f"{r.library} {_figures(r)}"
    text = f"{r.library} {'~' if r.share < 1 else ''}{r.seconds / own.seconds:.3g}x"
    text += f", {r.error / own.error:.3f}x" if own.error else ""
    return text + (f", peak {r.peak:.2f}" if r.peak is not None else "")


def plot(results: list[Result], path: Path) -> None:
    """Every other library's time and error over vqzoo's; a panel a layer."""
    own = {(r.layer, r.task): r for r in results if r.library == "vqzoo"}
    others = [r for r in results if r.error and r.library != "vqzoo" and (r.layer, r.task) in own]
    if not others:
        return
    layers = list(dict.fromkeys(r.layer for r in others))
    tasks = list(dict.fromkeys(r.task for r in others))
    libraries = list(dict.fromkeys(r.library for r in others))
    figure, panels = plt.subplots(
        1, len(layers), figsize=(3.6 * len(layers) + 2, 4), sharey=True, layout="constrained"
    )
    for panel, layer in zip(np.atleast_1d(panels), layers, strict=True):
        panel.plot(1, 1, marker="+", ms=14, color="black")
        panel.annotate("vqzoo", (1, 1), (6, 6), textcoords="offset points")
        for r in others:
            if r.layer != layer:
                continue
            ours = own[r.layer, r.task]
            panel.scatter(
                r.seconds / ours.seconds,
                r.error / ours.error,
                marker=_MARKERS[tasks.index(r.task) % len(_MARKERS)],
                color=f"C{libraries.index(r.library)}",
            )
        panel.set(title=layer, xscale="log", yscale="log", xlabel="time, times vqzoo's")
        panel.grid(alpha=0.3)
    np.atleast_1d(panels)[0].set_ylabel("squared error, times vqzoo's")
    handles: list[Artist] = [Patch(color=f"C{i}", label=x) for i, x in enumerate(libraries)]
    handles += [
        plt.Line2D([], [], ls="", marker=_MARKERS[i % len(_MARKERS)], color="grey", label=name)
        for i, name in enumerate(tasks)
    ]
    figure.legend(handles=handles, loc="outside right upper", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)

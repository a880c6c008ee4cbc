"""What the benchmarks found, as a table of ratios and a plot."""

import resource
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import matplotlib as mpl
import torch
from torch.utils.benchmark import Timer

mpl.use("Agg")
import matplotlib.pyplot as plt


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
    """One line a result; ratios are to vqzoo (time) and to the lowest error of the task."""
    lines = [
        f"{'layer':18}{'task':26}{'library':14}{'seconds':>10}{'x vqzoo':>9}{'error':>11}"
        f"{'x vqzoo':>9}{'peak/weight':>13}"
    ]
    ours = {(r.layer, r.task): r for r in results if r.library == "vqzoo"}
    for r in results:
        own = ours.get((r.layer, r.task))
        times = f"{r.seconds / own.seconds:9.1f}" if own else " " * 9
        errors = f"{r.error / own.error:9.3f}" if own and own.error else " " * 9
        peak = f"{r.peak:13.2f}" if r.peak is not None else f"{'-':>13}"
        mark = "~" if r.share < 1 else " "
        lines.append(
            f"{r.layer:18}{r.task:26}{r.library:14}{mark}{r.seconds:9.3f}{times}{r.error:11.5f}"
            f"{errors}{peak}"
        )
    return "\n".join(lines)


def plot(results: list[Result], path: Path) -> None:
    """Time against error, one panel a layer; a colour a library, a marker a task."""
    layers = list(dict.fromkeys(r.layer for r in results if r.error))
    if not layers:
        return
    tasks = list(dict.fromkeys(r.task for r in results if r.error))
    libraries = list(dict.fromkeys(r.library for r in results if r.error))
    figure, panels = plt.subplots(1, len(layers), figsize=(5 * len(layers), 4.5), squeeze=False)
    for panel, layer in zip(panels[0], layers, strict=True):
        for r in results:
            if r.layer == layer and r.error:
                marker, color = "os^Dvp*"[tasks.index(r.task) % 7], f"C{libraries.index(r.library)}"
                panel.scatter(r.seconds, r.error, marker=marker, color=color)
        panel.set(title=layer, xscale="log", yscale="log", xlabel="seconds")
    panels[0][0].set_ylabel("relative squared error")
    handles = [
        plt.Line2D([], [], ls="", marker="o", color=f"C{i}", label=x)
        for i, x in enumerate(libraries)
    ]
    handles += [
        plt.Line2D([], [], ls="", marker="os^Dvp*"[i % 7], color="grey", label=x)
        for i, x in enumerate(tasks)
    ]
    figure.legend(handles=handles, loc="outside right center", fontsize=8)
    figure.tight_layout(rect=(0, 0, 0.9, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)

"""SNR against storage of every dense matrix, by several methods at equal sizes: table and plot.

    python docs/examples/diba_snr.py

Every point is an artifact written to disk and loaded again: the size is that of the bytes that the
file holds for the layer, and SNR = 10·log10(‖W‖² / ‖W − Ŵ‖²) is of the weights that come back.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import timm
from matplotlib.figure import Figure
from safetensors import safe_open
from torch import nn

import vqzoo
from vqzoo.errors import NothingCompressed


@dataclass(frozen=True)
class Point:
    """One compressed matrix: fp32 bytes over bytes in the file, and its SNR in dB."""

    layer: str
    shape: tuple[int, ...]
    method: str
    asked: float
    ratio: float
    snr: float


def measure(model: nn.Module, method: str, asked: float, layers: str) -> list[Point]:
    """A point for every layer that the method compresses at this ratio."""
    with TemporaryDirectory() as name:
        folder = Path(name) / "artifact"
        try:
            vqzoo.compress(model, method, layers=layers, ratio=asked).save(folder)
        except NothingCompressed:
            return []
        loaded = dict(vqzoo.load(folder).named_parameters())
        sizes = stored_bytes(folder / "vqzoo.safetensors")
    points = []
    for key, size in sizes.items():
        weight = model.get_parameter(key).detach().double()
        rest = (weight - loaded[key].detach()).square().sum()
        snr = float(10 * (weight.square().sum() / rest).log10())
        ratio = 4 * weight.numel() / size
        points.append(
            Point(key.removesuffix(".weight"), tuple(weight.shape), method, asked, ratio, snr)
        )
    return points


def stored_bytes(path: Path) -> dict[str, int]:
    """Bytes of all the parts of each compressed weight."""
    sizes: dict[str, int] = {}
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - the file is no mapping
            key, parted, _ = name.partition("::")
            if parted:
                sizes[key] = sizes.get(key, 0) + file.get_tensor(name).nbytes
    return sizes


def table(points: Sequence[Point], methods: Sequence[str]) -> str:
    """Markdown: for each matrix and ratio asked, SNR and, in brackets, the ratio reached."""
    lines = ["| matrix | asked | " + " | ".join(methods) + " |", "|---" * (len(methods) + 2) + "|"]
    for layer, shape, asked in dict.fromkeys((p.layer, p.shape, p.asked) for p in points):
        cells = [f"`{layer}`, {' × '.join(map(str, shape))}", f"{asked:g}x"]
        for method in methods:
            found = [p for p in points if (p.layer, p.asked, p.method) == (layer, asked, method)]
            cells.append(f"{found[0].snr:.2f} ({found[0].ratio:.1f}x)" if found else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(points: Sequence[Point], methods: Sequence[str], path: Path) -> None:
    """One panel a matrix."""
    layers = list(dict.fromkeys((p.layer, p.shape) for p in points))
    figure = Figure(figsize=(4.5 * len(layers), 4.5), layout="constrained")
    panels = figure.subplots(1, len(layers), squeeze=False)[0]
    for axes, (layer, shape) in zip(panels, layers, strict=True):
        for method, marker in zip(methods, "osD^vP*X" * len(methods), strict=False):
            own = sorted((p.ratio, p.snr) for p in points if (p.layer, p.method) == (layer, method))
            if own:
                axes.plot(*zip(*own, strict=True), marker=marker, label=method)
        axes.set_title(f"{layer}, {' × '.join(map(str, shape))}")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("SNR (dB)")
    panels[0].legend()
    figure.supxlabel("fp32 bytes over bytes in the file")
    figure.savefig(path, dpi=100, metadata={"Software": None})


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="alexnet_mini.fmnist", help="a pretrained timm model")
    parser.add_argument("--methods", default="diba,svd,binary,km,pq", help="joined by commas")
    parser.add_argument("--ratios", default="8,12,16,24,32", help="joined by commas")
    parser.add_argument("--layers", default="dense", help="which layers, as `vqzoo run` takes it")
    parser.add_argument("--out", type=Path, default=Path("diba_snr.png"), help="the plot")
    given = parser.parse_args(arguments)
    vqzoo.register_models()
    model = timm.create_model(given.model, pretrained=True).float().eval()
    methods = given.methods.split(",")
    points: list[Point] = []
    for asked in map(float, given.ratios.split(",")):
        for method in methods:
            found = measure(model, method, asked, given.layers)
            points += found
            for p in found:
                print(f"{p.method} {p.layer} {p.ratio:.1f}x {p.snr:.2f} dB", file=sys.stderr)
    layers = list(dict.fromkeys(p.layer for p in points))
    points.sort(key=lambda point: (layers.index(point.layer), point.asked))
    print(table(points, methods))
    draw(points, methods, given.out)
    print(f"plot: {given.out}")


if __name__ == "__main__":
    main()

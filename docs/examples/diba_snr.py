"""Compare the SNR of several methods at equal sizes, for every dense matrix: a table and a plot.

    python docs/examples/diba_snr.py

Every point is an artifact that is written to disk and loaded again. The size counts all bytes that
the file holds for the layer; SNR = 10·log10(‖W‖² / ‖W − Ŵ‖²) is that of the loaded weights Ŵ.
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
    target_ratio: float
    ratio: float
    snr: float


def measure(model: nn.Module, method: str, target_ratio: float, layers: str) -> list[Point]:
    """Return a point for every layer that the method compresses at this ratio."""
    with TemporaryDirectory() as name:
        folder = Path(name) / "artifact"
        try:
            vqzoo.compress(model, method, layers=layers, ratio=target_ratio).save(folder)
        except NothingCompressed:
            return []
        loaded = dict(vqzoo.load(folder).named_parameters())
        sizes = stored_bytes(folder / "vqzoo.safetensors")
    points = []
    for key, size in sizes.items():
        weight = model.get_parameter(key).detach().double()
        error = (weight - loaded[key].detach()).square().sum()
        snr = float(10 * (weight.square().sum() / error).log10())
        ratio = 4 * weight.numel() / size
        layer, shape = key.removesuffix(".weight"), tuple(weight.shape)
        points.append(Point(layer, shape, method, target_ratio, ratio, snr))
    return points


def stored_bytes(path: Path) -> dict[str, int]:
    """Add up the bytes of all parts of each compressed weight."""
    sizes: dict[str, int] = {}
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - the file is not a mapping
            key, separator, _ = name.partition("::")
            if separator:
                sizes[key] = sizes.get(key, 0) + file.get_tensor(name).nbytes
    return sizes


def table(points: Sequence[Point], methods: Sequence[str]) -> str:
    """Format Markdown: by matrix and target ratio, the SNR and, in brackets, the actual ratio."""
    lines = ["| matrix | ratio | " + " | ".join(methods) + " |", "|---" * (len(methods) + 2) + "|"]
    by_cell = {(p.layer, p.target_ratio, p.method): p for p in points}
    for layer, shape, target in dict.fromkeys((p.layer, p.shape, p.target_ratio) for p in points):
        cells = [f"`{layer}`, {' × '.join(map(str, shape))}", f"{target:g}x"]
        for method in methods:
            point = by_cell.get((layer, target, method))
            cells.append(f"{point.snr:.2f} ({point.ratio:.1f}x)" if point else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(points: Sequence[Point], methods: Sequence[str], path: Path) -> None:
    """Draw a panel for each matrix: SNR against the actual ratio."""
    layers = list(dict.fromkeys((p.layer, p.shape) for p in points))
    figure = Figure(figsize=(4.5 * len(layers), 4.5), layout="constrained")
    panels = figure.subplots(1, len(layers), squeeze=False)[0]
    for axes, (layer, shape) in zip(panels, layers, strict=True):
        for method, marker in zip(methods, "osD^vP*X" * len(methods), strict=False):
            curve = [p for p in points if (p.layer, p.method) == (layer, method)]
            curve.sort(key=lambda point: point.ratio)
            if curve:
                ratios, snrs = [p.ratio for p in curve], [p.snr for p in curve]
                axes.plot(ratios, snrs, marker=marker, label=method)
        axes.set_title(f"{layer}, {' × '.join(map(str, shape))}")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("SNR (dB)")
    panels[0].legend()
    figure.supxlabel("fp32 bytes over bytes in the file")
    figure.savefig(path, dpi=100, metadata={"Software": None})


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all points, print the table, and draw the plot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="alexnet_mini.fmnist", help="a pretrained timm model")
    parser.add_argument("--methods", default="diba,svd,binary,km,pq", help="joined by commas")
    parser.add_argument("--ratios", default="8,12,16,24,32", help="joined by commas")
    parser.add_argument("--layers", default="dense", help="layer selectors, as in `vqzoo run`")
    parser.add_argument("--out", type=Path, default=Path("diba_snr.png"), help="the plot")
    options = parser.parse_args(arguments)
    vqzoo.register_models()
    model = timm.create_model(options.model, pretrained=True).float().eval()
    methods = options.methods.split(",")
    points: list[Point] = []
    for target_ratio in map(float, options.ratios.split(",")):
        for method in methods:
            measured = measure(model, method, target_ratio, options.layers)
            points += measured
            for p in measured:
                print(f"{p.method} {p.layer} {p.ratio:.1f}x {p.snr:.2f} dB", file=sys.stderr)
    layers = list(dict.fromkeys(p.layer for p in points))
    points.sort(key=lambda point: (layers.index(point.layer), point.target_ratio))
    print(table(points, methods))
    draw(points, methods, options.out)
    print(f"plot: {options.out}")


if __name__ == "__main__":
    main()

"""Bytes of files on disk against the divergence of the answers: vqzoo's methods and its peers.

For example, with the weights and images that docs/rate-distortion.md names:

    python tests/benchmarks/rate_distortion.py tf_efficientnet_lite0 \\
        --checkpoint lite0.safetensors --calibrate imagefolder:train \\
        --data imagefolder:val --curve ecq --curve nncodec=-34,-30,-26

prints a Markdown table. `--json` keeps the points, of several calls if need be, and `--plot` draws
all that are kept. The peers, NNCodec (ISO/IEC 15938-17) and Apple's coreai-opt, use no images;
they come with `pip install -e '.[codec-bench]'`.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rate_distortion_peers import by_nncodec, by_palettes
from rate_distortion_plot import Point, draw, share_of
from torch import Tensor, nn

import vqzoo
from vqzoo.artifact.files import write_text
from vqzoo.data.evaluation_data import open_data
from vqzoo.evaluation.statistics import Z95, paired_points
from vqzoo.models.dense import find_model
from vqzoo.progress import SilentWatcher
from vqzoo.runs.recipe import make_recipe
from vqzoo.runs.run import run

Small = tuple[int, nn.Module]  # bytes of the file, and the network that it decodes to


@dataclass(frozen=True)
class Curve:
    """A way to make a network smaller, and the settings of its points.

    Attributes:
        label: of a point, with its setting.
        settings: the default settings.
        make: a file, from the command's arguments and a setting.
    """

    label: str
    settings: tuple[str, ...]
    make: Callable[[argparse.Namespace, str], Small]


@dataclass(frozen=True)
class Answers:
    """What a network says: log-probabilities (images, classes) float64; labels (images,)."""

    logs: Tensor
    labels: Tensor | None

    @property
    def right(self) -> Tensor | None:
        """1 where the label is the likeliest class, (images,) float64."""
        return None if self.labels is None else (self.logs.argmax(1) == self.labels).double()


def answers(network: nn.Module, data: str) -> Answers:
    """What a network says about all images."""
    logits, labels = [], []
    with torch.no_grad():
        for batch in open_data(data, network).batches():
            logits.append(network(batch.images))
            if batch.labels is not None:
                labels.append(batch.labels)
    known = torch.cat(labels) if labels else None
    return Answers(torch.cat(logits).double().log_softmax(1), known)


def dense_network(arguments: argparse.Namespace) -> nn.Module:
    """A new copy of the network."""
    found = find_model(arguments.model, SilentWatcher(), checkpoint=arguments.checkpoint)
    return found.module.eval()


def by_run(arguments: argparse.Namespace, fields: dict[str, Any]) -> Small:
    """The file that `vqzoo run` writes with some fields of a recipe, all layers compressed."""
    fields = {
        "model": arguments.model,
        "checkpoint": arguments.checkpoint,
        "layers": ("all",),
        "calibrate": arguments.calibrate,
        "calibration_images": arguments.calibration_images,
        "rest": arguments.rest,
        **fields,
    }
    fields = {name: value for name, value in fields.items() if value is not None}
    with tempfile.TemporaryDirectory() as folder:
        finished = run(make_recipe(fields), SilentWatcher(), out=Path(folder) / "artifact")
        size = (finished.folder / "vqzoo.safetensors").stat().st_size
        return size, vqzoo.load(finished.folder)


def at_price(arguments: argparse.Namespace, price: str) -> Small:
    """The whole network at one price of a bit."""
    return by_run(arguments, {"price": float(price), "fold_norms": arguments.fold_norms})


def at_ratio(method: str) -> Callable[[argparse.Namespace, str], Small]:
    """A method with codebooks, its codes packed by `ans`."""

    def make(arguments: argparse.Namespace, ratio: str) -> Small:
        return by_run(arguments, {"method": method, "ratio": float(ratio), "packing": "ans"})

    return make


def at_density(arguments: argparse.Namespace, density: str) -> Small:
    """Deep Compression without retraining; a ratio would leave nothing of the smallest layers."""
    options = {"density": float(density)}
    return by_run(arguments, {"method": "deep-compression", "options": options, "packing": "ans"})


def at_size(arguments: argparse.Namespace, size: str) -> Small:
    """The whole network under one budget, by what vqzoo chooses."""
    return by_run(arguments, {"size": size, "fold_norms": arguments.fold_norms})


CURVES = {
    "ecq": Curve("ecq, `--lambda {}`", ("1e-6", "2e-6", "4e-6", "7e-6", "1.2e-5"), at_price),
    "km": Curve("km, ratio {}", ("6", "8", "10", "12"), at_ratio("km")),
    "pq": Curve("pq, ratio {}", ("6", "8", "12", "16"), at_ratio("pq")),
    "rq": Curve("rq, ratio {}", ("6", "8", "12", "16"), at_ratio("rq")),
    "deep-compression": Curve(
        "Deep Compression, density {}", ("0.5", "0.35", "0.25", "0.15"), at_density
    ),
    "size": Curve("`--size {}`", (), at_size),
    "nncodec": Curve(
        "NNCodec, qp {}",
        ("-38", "-34", "-32", "-30", "-28", "-26"),
        lambda arguments, qp: by_nncodec(dense_network(arguments), int(qp)),
    ),
    "palettes": Curve(
        "coreai-opt, {} bits",
        ("6", "4", "3", "2"),
        lambda arguments, bits: by_palettes(dense_network(arguments), int(bits)),
    ),
}


def points(arguments: argparse.Namespace) -> Iterator[Point]:
    """The points of all curves that the command names."""
    dense = answers(dense_network(arguments), arguments.data)
    for kind, settings in arguments.curve:
        curve = CURVES[kind]
        for setting in settings or curve.settings:
            start = time.perf_counter()
            size, network = curve.make(arguments, setting)
            seconds = time.perf_counter() - start
            small = answers(network, arguments.data)
            yield measured(kind, curve.label.format(setting), size, dense, small, seconds)


def measured(
    kind: str, label: str, size: int, dense: Answers, small: Answers, seconds: float
) -> Point:
    """A point of a curve."""
    divergences = (dense.logs.exp() * (dense.logs - small.logs)).sum(1)
    paired = None
    if dense.right is not None and small.right is not None:
        paired = paired_points(dense.right, small.right)
    return Point(
        kind=kind,
        label=label,
        bytes=size,
        kl=float(divergences.mean()),
        kl_error=Z95 * float(divergences.std()) / len(divergences) ** 0.5,
        change=None if paired is None else paired.points,
        change_error=None if paired is None else paired.half_width,
        seconds=seconds,
    )


def row(point: Point, kept: list[Point]) -> str:
    """A row of the table; its last figure is a share of NNCodec's bytes at the same KL."""
    change = "?"
    if point.change is not None:
        change = f"{point.change:+.2f} ± {point.change_error:.2f}".replace("-", "−")
    share = share_of([other for other in kept if other.kind == "nncodec"], point)
    return (
        f"| {point.label} | {point.bytes:,} | {point.kl:.4f} ± {point.kl_error:.4f} | {change} "
        f"| {'' if share is None else f'{share:.3f}'} | {point.seconds:.0f} s |"
    )


def curve_option(text: str) -> tuple[str, tuple[str, ...]]:
    """A curve and its settings, from KIND or KIND=SETTING,SETTING."""
    kind, _, settings = text.partition("=")
    if kind not in CURVES:
        raise argparse.ArgumentTypeError(f"{kind} is none of {', '.join(CURVES)}")
    return kind, tuple(part for part in settings.split(",") if part)


def main() -> None:
    """Measure the points, print the table, and keep and draw them where that is wanted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--data", required=True, help="images to measure on")
    parser.add_argument("--calibrate", help="images to calibrate with; none by default")
    parser.add_argument("--calibration-images", type=int)
    parser.add_argument("--rest", default="float16", help="how dense tensors are stored")
    parser.add_argument("--fold-norms", action="store_true", help="fold batch norms under a budget")
    parser.add_argument(
        "--curve",
        type=curve_option,
        action="append",
        default=[],
        metavar="KIND[=SETTING,...]",
        help=f"{', '.join(CURVES)}; repeatable",
    )
    parser.add_argument("--json", type=Path, help="a file of points, to add to")
    parser.add_argument("--plot", type=Path, help="a PNG of all points of the file")
    arguments = parser.parse_args()
    kept: list[Point] = []
    if arguments.json is not None and arguments.json.exists():
        kept = [Point(**fields) for fields in json.loads(arguments.json.read_text("utf-8"))]
    for point in points(arguments) if arguments.curve else ():
        kept = [other for other in kept if other.label != point.label] + [point]
        print(row(point, kept), flush=True)
        if arguments.json is not None:
            write_text(arguments.json, json.dumps([asdict(other) for other in kept], indent=1))
    print("\n| | bytes | KL | top-1, points | of NNCodec's bytes | time |")
    print("|---|---|---|---|---|---|")
    for point in kept:
        print(row(point, kept))
    if arguments.plot is not None:
        draw(arguments.model, kept, arguments.plot)


if __name__ == "__main__":
    main()

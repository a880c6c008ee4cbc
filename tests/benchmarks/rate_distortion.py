"""Bytes of files on disk against the divergence of the answers: ecq, and NNCodec if installed.

For example, with the weights and images that docs/rate-distortion.md names:

    python tests/benchmarks/rate_distortion.py tf_efficientnet_lite0 \\
        --checkpoint lite0.safetensors --calibrate imagefolder:train \\
        --data imagefolder:val

prints a Markdown table. NNCodec (ISO/IEC 15938-17) uses no images; `pip install nncodec`.
"""

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import vqzoo
from vqzoo.data.evaluation_data import open_data
from vqzoo.models.dense import find_model
from vqzoo.progress import SilentWatcher
from vqzoo.runs.recipe import make_recipe
from vqzoo.runs.run import run

Answers = tuple[Tensor, Tensor | None]  # log-probabilities (images, classes); labels (images,)


def answers(network: nn.Module, data: str) -> Answers:
    """What a network says about all images."""
    logits, labels = [], []
    with torch.no_grad():
        for batch in open_data(data, network).batches():
            logits.append(network(batch.images))
            if batch.labels is not None:
                labels.append(batch.labels)
    known = torch.cat(labels) if labels else None
    return torch.cat(logits).double().log_softmax(1), known


def row(name: str, size: int, dense: Answers, small: Answers, seconds: float) -> str:
    """A row of the table."""
    divergences = (dense[0].exp() * (dense[0] - small[0])).sum(1)
    error = 1.96 * float(divergences.std()) / len(divergences) ** 0.5
    change = "?"
    if dense[1] is not None:
        right = [
            (part.argmax(1) == dense[1]).double().mean() * 100 for part in (dense[0], small[0])
        ]
        change = f"{float(right[1] - right[0]):+.1f}".replace("-", "−")
    return (
        f"| {name} | {size:,} | {float(divergences.mean()):.4f} ± {error:.4f} | {change} "
        f"| {seconds:.0f} s |"
    )


def by_ecq(arguments: argparse.Namespace, price: float, folder: Path) -> tuple[int, nn.Module]:
    """The size of the file that `vqzoo run` writes, and the network that it decodes to."""
    fields: dict[str, Any] = {
        "model": arguments.model,
        "checkpoint": arguments.checkpoint,
        "method": "ecq",
        "options": {"price": price},
        "layers": ("all",),
        "calibrate": arguments.calibrate,
        "calibration_images": arguments.calibration_images,
        "rest": arguments.rest,
    }
    fields = {name: value for name, value in fields.items() if value is not None}
    finished = run(make_recipe(fields), SilentWatcher(), out=folder)
    size = (finished.folder / "vqzoo.safetensors").stat().st_size
    return size, vqzoo.load(finished.folder)


def by_nncodec(dense: nn.Module, qp: int, network: nn.Module) -> tuple[int, nn.Module]:
    """The size of NNCodec's stream, and `network` with the weights that it decodes to."""
    from nncodec import nn as codec

    settings = {"qp": qp, "use_dq": True, "results": tempfile.gettempdir(), "verbose": False}
    stream = codec.encode(dense, {**settings, "bnf": False, "ioq": False})
    decoded = codec.decode(stream)
    state = {
        key: torch.as_tensor(np.array(decoded[key])).reshape(value.shape).to(value.dtype)
        if key in decoded
        else value
        for key, value in network.state_dict().items()
    }
    network.load_state_dict(state)
    return len(stream), network.eval()


def rows(arguments: argparse.Namespace) -> Iterator[str]:
    """The rows of the table."""

    def opened() -> nn.Module:
        return find_model(
            arguments.model, SilentWatcher(), checkpoint=arguments.checkpoint
        ).module.eval()

    dense = opened()
    reference = answers(dense, arguments.data)
    for price in arguments.prices:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            size, network = by_ecq(arguments, price, Path(folder) / "artifact")
            seconds = time.perf_counter() - start
            small = answers(network, arguments.data)
            yield row(f"ecq, price {price:g}", size, reference, small, seconds)
    for qp in arguments.qp if importlib.util.find_spec("nncodec") else ():
        start = time.perf_counter()
        size, network = by_nncodec(dense, qp, opened())
        seconds = time.perf_counter() - start
        yield row(f"NNCodec, qp {qp}", size, reference, answers(network, arguments.data), seconds)


def numbers(text: str) -> list[float]:
    """Numbers that commas separate."""
    return [float(part) for part in text.split(",") if part]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--data", required=True, help="images to measure on")
    parser.add_argument("--calibrate", help="images to calibrate with; none by default")
    parser.add_argument("--calibration-images", type=int)
    parser.add_argument("--rest", default="float16", help="how dense tensors are stored")
    parser.add_argument("--prices", type=numbers, default=numbers("1e-6,2e-6,4e-6,7e-6,1.2e-5"))
    parser.add_argument(
        "--qp",
        type=lambda text: [int(number) for number in numbers(text)],
        default=[-38, -34, -32, -30, -28, -26],
    )
    arguments = parser.parse_args()
    print("| | bytes | KL | top-1, points | time |")
    print("|---|---|---|---|---|")
    for line in rows(arguments):
        print(line, flush=True)


if __name__ == "__main__":
    main()

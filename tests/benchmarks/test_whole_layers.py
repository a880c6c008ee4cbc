"""What compression takes besides clustering: the loop over layers, memory, full-size networks."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from bars import LAYER, METHODS
from report import Result
from torch import nn
from weights import weight

import vqzoo
from vqzoo.numerics.clustering.scalar_kmeans import scalar_kmeans

HERE = Path(__file__).parent
ROUNDS = 5


@pytest.mark.parametrize("what", ["clustering", "compress"])
def test_loop(benchmark: Callable[..., object], what: str, results: list[Result]) -> None:
    """Copies, measuring and decoding, beside the clustering that they surround."""
    matrix = weight(LAYER)
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
    layer.weight = nn.Parameter(matrix)
    model = nn.Sequential(layer)

    def clustering() -> object:
        return scalar_kmeans(matrix, 16)

    def compress() -> object:
        return vqzoo.compress(model, "km", layers="all", k=16)

    run = {"clustering": clustering, "compress": compress}[what]
    benchmark.pedantic(run, rounds=ROUNDS, warmup_rounds=1)
    seconds = benchmark.stats.stats.min
    results.append(Result(LAYER, f"km k=16, {what}", "vqzoo", seconds, 0.0, None, 1.0))


@pytest.mark.parametrize("method", METHODS)
def test_memory(method: str, results: list[Result]) -> None:
    start = time.perf_counter()
    ran = subprocess.run(
        [sys.executable, str(HERE / "peak_of_method.py"), method],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - start
    peak = float(ran.stdout.split()[-1])
    results.append(Result(LAYER, f"compress {method}", "vqzoo", seconds, 0.0, peak, 1.0))
    assert peak > 0


@pytest.mark.parametrize("model", ["alexnet", "vgg16"])
def test_run(model: str, results: list[Result], tmp_path: Path) -> None:
    out = tmp_path / model
    # Its large layers are convolutions in timm's VGG: dense alone would leave them out.
    layers = "all" if model == "vgg16" else "dense"
    command = ["run", model, "--weights", "random", "-m", "pq", "--layers", layers]
    command += ["--out", str(out)]
    subprocess.run([sys.executable, "-m", "vqzoo.cli.main", *command], check=True)
    report = json.loads((out / "report.json").read_text())
    seconds = report["seconds"]["compress"]
    results.append(Result(LAYER, f"run {model}", "vqzoo", seconds, 0.0, None, 1.0))
    assert report["ratio"]["layers"] > 1

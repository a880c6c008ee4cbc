"""One large network: one process against two that compress its layers side by side.

`python layers_in_parallel.py`: ViT-L/16 and ConvNeXt-XL with random weights by km, pq and ecq; one
process with two threads, then two with a thread each (and the driver, which waits). Printed are
the seconds of compression and of the whole run, and the peak memory of all processes together
until the layers are compressed and until the end. `--layers` takes some layers alone, `--methods`
and `--models` others. The artifacts must be equal.
"""

import json
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

from sweep_scale import MB, children, memory

from vqzoo.artifact.files import sha256_file
from vqzoo.artifact.schema import WEIGHTS_FILE

THREADS = 2


@dataclass
class Measured:
    """What a run took.

    Attributes:
        compression: seconds of the layers.
        total: seconds of the run, without starting Python.
        compression_peak: bytes of all processes before the artifact was written.
        peak: bytes of all processes.
        sha256: of the artifact's weights.
    """

    compression: float = 0.0
    total: float = 0.0
    compression_peak: int = 0
    peak: int = 0
    sha256: str = ""


def measure(model: str, method: str, layers: str, out: Path, *how: str) -> Measured:
    """Run `vqzoo run` in a process of its own."""
    words = [sys.executable, "-m", "vqzoo.cli.main", "run", model, "--weights", "random"]
    words += ["--method", method, "--layers", layers, "--threads", str(THREADS)]
    log = out.with_suffix(".log")
    with log.open("w") as said:
        driver = subprocess.Popen([*words, "--out", str(out), *how], stdout=said, stderr=said)
    measured, stop = Measured(), Event()
    watch = Thread(target=sample, args=(driver.pid, out, measured, stop))
    watch.start()
    code = driver.wait()
    stop.set()
    watch.join()
    assert code == 0, log.read_text()
    seconds = json.loads((out / "report.json").read_text())["seconds"]
    measured.compression, measured.total = seconds["compress"], seconds["total"]
    measured.sha256 = sha256_file(out / WEIGHTS_FILE)
    return measured


def sample(driver: int, out: Path, measured: Measured, stop: Event) -> None:
    """Note peaks of proportional set sizes: pages that processes share count once."""
    written = out.with_name(f"{out.name}.partial") / WEIGHTS_FILE
    while not stop.wait(0.5):
        held = sum(memory(pid) for pid in [driver, *children(driver)])
        measured.peak = max(measured.peak, held)
        if not (written.exists() or out.exists()):
            measured.compression_peak = max(measured.compression_peak, held)


def compare(model: str, method: str, layers: str, folder: Path) -> None:
    """Print both runs and their ratio."""
    alone = measure(model, method, layers, folder / "alone")
    both = measure(model, method, layers, folder / "both", "--executor", "local:2")
    for name, one in (("1 process", alone), ("local:2", both)):
        print(
            f"{model} {method} {name}: compression {one.compression:.1f} s, run {one.total:.1f} s, "
            f"peak {one.compression_peak / MB:,.0f} MB until the layers are compressed, "
            f"{one.peak / MB:,.0f} MB in all"
        )
    assert alone.sha256 == both.sha256
    print(
        f"{model} {method}: local:2 compresses {alone.compression / both.compression:.2f} times as "
        f"fast, with {both.compression_peak / alone.compression_peak:.2f} times the memory; the "
        "artifacts are equal",
        flush=True,
    )


def arguments() -> Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="vit_large_patch16_224,convnext_xlarge")
    parser.add_argument("--methods", default="km,pq,ecq")
    parser.add_argument("--layers", default="all", help="as `vqzoo run --layers` takes them")
    return parser.parse_args()


def main() -> None:
    """Compare what the command line says; a run before compiles the kernels."""
    request = arguments()
    for model in request.models.split(","):
        for method in request.methods.split(","):
            with TemporaryDirectory() as scratch:
                measure("vit_tiny_patch16_224", method, "head", Path(scratch) / "warm")
                compare(model, method, request.layers, Path(scratch))


if __name__ == "__main__":
    main()

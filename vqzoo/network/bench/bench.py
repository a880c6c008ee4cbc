"""Measure the runtimes of an artifact's network side by side."""

import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vqzoo.data.model_input import input_size
from vqzoo.errors import UsageError, VqzooError
from vqzoo.network.bench.latency import FEWEST_PASSES, latency
from vqzoo.network.export import dense, export, onnx, program
from vqzoo.network.export.formats import FORMATS
from vqzoo.network.export.onnx_packed import Inputs, NothingToPack
from vqzoo.network.export.pte import write as pte
from vqzoo.network.load import load, verified_artifact
from vqzoo.numerics.threads import thread_count
from vqzoo.plugin.files import files_in_use
from vqzoo.progress import SilentWatcher, Watcher
from vqzoo.report.costs.record import BenchRecord, Latency, Machine, RuntimeRecord

MOST_IMAGES = 4096  # in a batch
# Formats of `vqzoo export`: the file that is loaded, and the runtimes.
_EXPORTED = {
    "pt2": (program.FILE, ("pt2",)),
    "onnx": (onnx.FILE, ("onnx", "onnx-codes")),
    "pte": (pte.FILE, ("pte",)),
    "openvino": ("model.xml", ("openvino",)),
}
_PACKED: dict[str, Inputs] = {"onnx-packed": "float32", "onnx-int8": "int8"}
_WORKER = "vqzoo.network.bench.worker"


@dataclass(frozen=True)
class _Runtime:
    """A runtime to measure: its name, and the file or folder that it loads."""

    name: str
    path: Path
    bytes: int


def bench(
    source: str | Path,
    *,
    batches: Sequence[int] = (1, 8, 32),
    repeats: int = 20,
    threads: int | None = None,
    watcher: Watcher | None = None,
) -> BenchRecord:
    """Measure load time, latency and memory of an artifact's network on the CPU.

    Each runtime has a new process: "dense" is timm's network with decoded weights from
    `vqzoo export --to dense`; "decoded" and "codes" are the modes of `vqzoo.load`; "pt2" is torch
    on a program of torch.export; "onnx" and "onnx-codes" are onnxruntime on ONNX with codes, with
    constants folded at load, and not; "onnx-packed" and "onnx-int8", where Linear layers have
    integers, multiply by them, inputs in float32 and in int8; "pte" is ExecuTorch, one image after
    another; "openvino" is OpenVINO.

    Args:
        source: an artifact's folder or repository.
        batches: images in a pass.
        repeats: timed passes at each batch size.
        threads: of each runtime; by default as many as there are cores.
        watcher: progress callbacks.

    Raises:
        UsageError: there are fewer than six passes or unusable batch sizes, or the artifact holds
            weights only.
        ArtifactError: the artifact is damaged.
        VqzooError: a runtime failed.
    """
    sizes = sorted(set(batches))
    if not sizes or sizes[0] < 1 or sizes[-1] > MOST_IMAGES:
        raise UsageError(f"batch sizes must be from 1 to {MOST_IMAGES:,}, not {list(batches)}")
    if repeats < FEWEST_PASSES:
        raise UsageError(f"the interval of a median takes at least {FEWEST_PASSES} passes")
    watcher = watcher or SilentWatcher()
    count = threads or thread_count()
    artifact, _ = verified_artifact(source)
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="vqzoo-bench-") as parent:
        runtimes = list(_runtimes(artifact.weights_path, Path(parent), left_out, watcher))
        task = {
            "size": list(_warm(artifact.weights_path.parent, watcher)),
            "batches": sizes,
            "repeats": repeats,
            "threads": count,
            "plugins": [str(path) for path, _ in files_in_use()],
        }
        results = [_measured(runtime, task, watcher) for runtime in runtimes]
    expected = np.array(results[0]["logits"])
    return BenchRecord(
        artifact=str(source),
        artifact_bytes=artifact.block.bytes,
        machine=_machine(count),
        repeats=repeats,
        runtimes=tuple(
            RuntimeRecord(
                name=runtime.name,
                bytes=runtime.bytes,
                load=result["load"],
                imported=result["imported"],
                latencies=tuple(_latencies(sizes, result)),
                error=_error(result["logits"], expected),
            )
            for runtime, result in zip(runtimes, results, strict=True)
        ),
        left_out=left_out,
    )


def _runtimes(
    weights: Path, parent: Path, left_out: dict[str, str], watcher: Watcher
) -> Iterator[_Runtime]:
    """Write what runtimes load, and say which are left out and why."""
    artifact = weights.parent
    export(artifact, "dense", parent / "dense", watcher=watcher)
    yield _Runtime("dense", parent / "dense", (parent / "dense" / dense.FILE).stat().st_size)
    yield _Runtime("decoded", artifact, weights.stat().st_size)
    yield _Runtime("codes", artifact, weights.stat().st_size)
    for name, (file, kinds) in _EXPORTED.items():
        packages, extra = FORMATS[name].packages, FORMATS[name].extra
        missing = [package for package in packages if find_spec(package) is None]
        reason = f"{', '.join(missing)} not installed: pip install 'vqzoo[{extra}]'"
        if not missing:
            try:
                exported = export(artifact, name, parent / name, watcher=watcher)
            except VqzooError as error:  # not every network can be exported
                reason, missing = str(error), [name]
        for kind in kinds:
            if missing:
                left_out[kind] = reason
            else:
                yield _Runtime(kind, parent / name / file, exported.bytes)
        if name == "onnx" and not missing:
            yield from _packed(artifact, parent, left_out, watcher)


def _packed(
    artifact: Path, parent: Path, left_out: dict[str, str], watcher: Watcher
) -> Iterator[_Runtime]:
    """onnxruntime on packed integers, if there are any."""
    for kind, inputs in _PACKED.items():
        try:
            exported = export(
                artifact, "onnx", parent / kind, weights="packed", inputs=inputs, watcher=watcher
            )
        except NothingToPack:
            return
        except VqzooError as error:  # rounded inputs may change too much
            left_out[kind] = str(error)
            continue
        yield _Runtime(kind, parent / kind / onnx.FILE, exported.bytes)


def _warm(artifact: Path, watcher: Watcher) -> tuple[int, int, int]:
    """Run a pass in each mode, so that kernels are compiled before anything is measured.

    Returns:
        Channels, height and width of images.
    """
    with watcher.phase("compiling kernels"), torch.inference_mode():
        for mode in ("decoded", "codes"):
            model = load(artifact, mode=mode)
            size = input_size(model)
            for batch in (1, 2):
                model(torch.zeros(batch, *size))
    return size


def _measured(runtime: _Runtime, task: dict[str, Any], watcher: Watcher) -> dict[str, Any]:
    """What the worker measured.

    Raises:
        VqzooError: it failed; the message has its last line.
    """
    words = json.dumps(task | {"kind": runtime.name, "path": str(runtime.path)})
    with watcher.phase(f"measuring {runtime.name}"):
        done = subprocess.run(
            [sys.executable, "-m", _WORKER, words], capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise VqzooError(f"{runtime.name} cannot be measured: {lines[-1]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _latencies(batches: Sequence[int], result: dict[str, Any]) -> Iterator[Latency]:
    for batch, seconds, peak in zip(batches, result["seconds"], result["peaks"], strict=True):
        yield latency(batch, seconds, peak)


def _error(logits: Sequence[float], expected: "np.ndarray[Any, Any]") -> float:
    largest = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
    return float(np.abs(np.array(logits) - expected).max()) / largest


def _machine(threads: int) -> Machine:
    names = ("vqzoo", "torch", "timm", "onnxruntime", "executorch", "openvino")
    packages = {name: version(name) for name in names if find_spec(name) is not None}
    return Machine(cpu=_cpu(), threads=threads, packages=packages)


def _cpu() -> str:
    """The processor's name, of what the system tells."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

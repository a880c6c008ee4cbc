"""The process that measures one runtime: `python -m vqzoo.network.bench.worker TASK`, TASK as JSON.

It imports what its runtime needs and nothing else, so that its peak of memory is that of a program
which only loads the network and runs it.
"""

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]
_WARM_UP = 2  # passes at each batch size before the clock starts


def main(task: dict[str, Any]) -> dict[str, Any]:
    """Measure one runtime.

    Args:
        task: the "kind" of runtime (see `_LOADERS`), the "path" of its file or folder, "plugins"
            (files), "batches" (ascending sizes), "repeats", "threads", and the "size" of images
            (channels, height, width).

    Returns:
        "load" in seconds; "imported", the bytes held when the packages were imported; "mapped", by
        how many more bytes pages of files (the code of libraries, mostly, which processes share)
        were held at the end; "seconds" of each timed pass and "peaks" in bytes so far, a list for
        each batch; and the "logits" of the first image. Memory is None where the system does not
        tell.
    """
    load = _LOADERS[task["kind"]](task)
    imported, mapped = _memory("VmRSS"), _memory("RssFile")
    started = time.perf_counter()
    run = load()
    seconds = time.perf_counter() - started
    passes, peaks = [], []
    logits: list[float] = []
    for batch in task["batches"]:
        images = example(batch, task["size"])
        for _ in range(_WARM_UP):
            answers = run(images)
        logits = logits or answers[0].tolist()
        passes.append([_timed(run, images) for _ in range(task["repeats"])])
        peaks.append(_memory("VmHWM"))
    return {
        "load": seconds,
        "imported": imported,
        "mapped": None if mapped is None else (_memory("RssFile") or 0) - mapped,
        "seconds": passes,
        "peaks": peaks,
        "logits": logits,
    }


def example(batch: int, size: list[int]) -> np.ndarray[Any, Any]:
    """Random images (batch, channels, height, width), float32; the first is always the same."""
    return np.random.default_rng(0).standard_normal((batch, *size), dtype=np.float32)


def _timed(run: Run, images: np.ndarray[Any, Any]) -> float:
    started = time.perf_counter()
    run(images)
    return time.perf_counter() - started


def _memory(field: str) -> int | None:
    """Bytes by Linux: held now (VmRSS; of files, RssFile), or at most so far (VmHWM)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    match = re.search(rf"{field}:\s+(\d+) kB", status.read_text())
    return None if match is None else 1024 * int(match[1])


def _dense(task: dict[str, Any]) -> Callable[[], Run]:
    import timm
    import torch

    torch.set_num_threads(task["threads"])
    folder = Path(task["path"])
    if not timm.is_model(json.loads((folder / "config.json").read_text())["architecture"]):
        from vqzoo.models.registration import register_models
        from vqzoo.plugin.files import plugin_files

        with plugin_files(task["plugins"]):
            register_models()
    return lambda: _torch(timm.create_model(f"local-dir:{folder}", pretrained=True).eval())


def _artifact(task: dict[str, Any]) -> Callable[[], Run]:
    import torch

    from vqzoo.network.load import load
    from vqzoo.numerics.threads import use_threads
    from vqzoo.plugin.files import plugin_files
    from vqzoo.plugin.manager import installed_plugins

    torch.set_num_threads(task["threads"])
    with plugin_files(task["plugins"]):
        installed_plugins()  # imports them

    def load_network() -> Run:
        with use_threads(task["threads"]):
            model = load(Path(task["path"]), mode=task["kind"], plugins=task["plugins"])
        run = _torch(model)

        def run_on_threads(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            with use_threads(task["threads"]):
                return run(images)

        return run_on_threads

    return load_network


def _torch(model: Any) -> Run:
    import torch

    def run(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        with torch.inference_mode():
            answers: np.ndarray[Any, Any] = model(torch.from_numpy(images)).numpy()
        return answers

    return run


def _onnx(task: dict[str, Any]) -> Callable[[], Run]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task["threads"]
    disabled = ["ConstantFolding"] if task["kind"] == "onnx-codes" else []

    def load() -> Run:
        session = onnxruntime.InferenceSession(
            task["path"],
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=disabled,
        )
        (name,) = (value.name for value in session.get_inputs())
        return lambda images: session.run(None, {name: images})[0]

    return load


def _program(task: dict[str, Any]) -> Callable[[], Run]:
    import torch

    torch.set_num_threads(task["threads"])
    return lambda: _torch(torch.export.load(task["path"]).module())


def _pte(task: dict[str, Any]) -> Callable[[], Run]:
    import torch
    from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool

    from vqzoo.network.export.pte.run import load_program

    torch.set_num_threads(task["threads"])
    _unsafe_reset_threadpool(task["threads"])  # unsafe once a program is loaded

    def load() -> Run:
        run = load_program(Path(task["path"]))
        return lambda images: run(torch.from_numpy(images)).numpy()

    return load


def _openvino(task: dict[str, Any]) -> Callable[[], Run]:
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": task["threads"],
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    }

    def load() -> Run:
        compiled = core.compile_model(task["path"], "CPU", settings)
        return lambda images: compiled(images)[0]

    return load


_LOADERS: dict[str, Callable[[dict[str, Any]], Callable[[], Run]]] = {
    "dense": _dense,
    "decoded": _artifact,
    "codes": _artifact,
    "pt2": _program,
    "onnx": _onnx,
    "onnx-codes": _onnx,
    "onnx-packed": _onnx,
    "onnx-int8": _onnx,
    "pte": _pte,
    "openvino": _openvino,
}

if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))

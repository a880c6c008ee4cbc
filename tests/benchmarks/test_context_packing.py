"""The packing `context` beside `ans` and NNCodec's coder, on the same codes of a trained network.

NNCodec (ISO/IEC 15938-17, `pip install nncodec`) codes each bit of a code with adaptive contexts,
on one thread. vqzoo decodes the chunks of a stream in parallel, so its time on two is told as well.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vqzoo.calibration.second_order.statistics import second_order
from vqzoo.compression.options import validate_options
from vqzoo.compression.plugin_calls import layer_context
from vqzoo.compression.view import compressible_layers
from vqzoo.data.calibration_data import open_calibration_data
from vqzoo.models.dense import find_model
from vqzoo.numerics.coding import ans
from vqzoo.numerics.coding.context import stream as contexts
from vqzoo.numerics.threads import use_threads
from vqzoo.plugin import Indices
from vqzoo.plugin.manager import installed_plugins
from vqzoo.progress import SilentWatcher

ROUNDS = 9


@cache
def coded_matrices(trellis: bool, price: float) -> list[tuple[Tensor, int]]:
    """Codes (m, n) of all layers of alexnet_mini.fmnist by ecq, and their cardinalities."""
    plugins = installed_plugins()
    ecq = plugins.quantizers.get("ecq").item
    model = find_model("alexnet_mini.fmnist", SilentWatcher()).module
    layers, _ = compressible_layers(model)
    data = open_calibration_data("fmnist", model, images=200)
    statistics = second_order(model, layers, data.batches(), 200)
    matrices = []
    for layer in layers:
        context = layer_context(
            plugins,
            layer,
            seed=0,
            device=torch.device("cpu"),
            note=lambda text: None,
            progress=lambda done, total: None,
        )
        weight = model.get_submodule(layer.name).weight.detach().reshape(layer.matrix_shape)
        code = ecq.quantize(
            weight.contiguous(),
            validate_options(ecq, {"price": price, "trellis": trellis}),
            replace(context, second_order=statistics[layer.name]),
        )
        codes = code.parts["codes"]
        assert isinstance(codes, Indices)
        matrices.append((codes.values, codes.cardinality))
    return matrices


def nncodec_streams(matrices: list[tuple[Tensor, int]], coder: Any, off: tuple[Any, ...]) -> list:
    """What NNCodec's encoder makes of each matrix, with the better of its two initializations."""
    streams = []
    for codes, cardinality in matrices:
        levels = np.ascontiguousarray(codes.numpy().astype(np.int32) - cardinality // 2)
        candidates = []
        for initialization in (0, 1):
            encoder = coder.Encoder()
            encoder.initCtxModels(10, initialization)
            rows = np.zeros(len(levels), np.int32)
            encoder.encodeLayer(levels, 0, 0, 0, 0, 0, rows, *off, 0, 0)
            candidates.append(np.array(encoder.finish(), np.uint8))
        streams.append(min(candidates, key=len))
    return streams


def seconds(decode: Callable[[], object], threads: int) -> float:
    """Wall-clock time of the fastest of several runs."""
    times = []
    with use_threads(threads):
        for _ in range(ROUNDS):
            start = time.perf_counter()
            decode()
            times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.parametrize("price", [1e-7, 1e-8, 3e-9, 1e-10])
@pytest.mark.parametrize("trellis", [False, True], ids=["plain", "trellis"])
def test_context_is_as_small_as_nncodec(
    trellis: bool, price: float, capsys: pytest.CaptureFixture[str]
) -> None:
    coder = pytest.importorskip("nncodec.extensions.deepCABAC")
    tool = pytest.importorskip("nncodec.nnc_core.hdsp.hdsp_tool")
    matrices = coded_matrices(trellis, price)
    ours = [contexts.pack(codes, k) for codes, k in matrices]
    plain = [ans.pack(codes.reshape(-1), k) for codes, k in matrices]
    theirs = nncodec_streams(matrices, coder, tool.HDSP_OPTS_OFF())

    def by_context() -> None:
        for (codes, k), stream in zip(matrices, ours, strict=True):
            contexts.unpack(stream, k, *codes.shape)

    def by_ans() -> None:
        for (codes, k), stream in zip(matrices, plain, strict=True):
            ans.unpack(stream, k, codes.numel())

    def by_nncodec() -> None:
        for (codes, _), stream in zip(matrices, theirs, strict=True):
            decoder = coder.Decoder()
            decoder.setStream(stream)
            decoder.initCtxModels(10)
            decoded = np.zeros(tuple(codes.shape), np.int32)
            decoder.decodeLayer(decoded, 0, 0, 0, 0, *tool.HDSP_OPTS_OFF(), 0, 0)

    count = sum(codes.numel() for codes, _ in matrices)
    with capsys.disabled():
        what = f"ecq, price {price:g}{', trellis' if trellis else ''}"
        print(f"\n{count / 1e6:.2f}M codes of {what}")
        for name, streams, decode, threads in (
            ("context", ours, by_context, (1, 2)),
            ("ans", plain, by_ans, (1, 2)),
            ("NNCodec's coder", theirs, by_nncodec, (1,)),
        ):
            size = sum(len(stream) for stream in streams)
            for number in threads:
                elapsed = 1000 * seconds(decode, number)
                print(f"{name:16} {size:9,} bytes, {number} thread(s): {elapsed:7.1f} ms")
    assert sum(len(s) for s in ours) <= 1.01 * sum(len(s) for s in theirs)

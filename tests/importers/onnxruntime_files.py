"""ONNX files for onnxruntime's quantizers, and what onnxruntime answers."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import timm
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization.preprocess import quant_pre_process

Array = NDArray[Any]
SIZES = {"test_vit": 160, "test_resnet": 64}
IMAGES = {
    size: np.random.default_rng(1).normal(size=(1, 3, size, size)).astype(np.float32)
    for size in SIZES.values()
}


def write_plain(folder: Path) -> dict[str, Path]:
    """Exports of networks with random weights, of which no two tensors are equal; and these as
    onnxruntime prepares them for its quantizers."""
    paths = {}
    for network, size in SIZES.items():
        model = timm.create_model(network).eval()
        generator = torch.Generator().manual_seed(0)
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator))
        path = paths[network] = folder / f"{network}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(model, (torch.zeros(1, 3, size, size),), str(path), dynamo=False)
        prepared = paths[f"{network} prepared"] = folder / f"{network}.prepared.onnx"
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
    return paths


def answers(path: Path) -> Array:
    """What onnxruntime answers on a random image."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    return session.run(None, {entry.name: IMAGES[entry.shape[2]]})[0]


def initializers(model: onnx.ModelProto) -> dict[str, Array]:
    """The constants of a file."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def optimize(path: Path, optimized: Path) -> None:
    """Let onnxruntime fuse operators, and save the graph."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(optimized)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

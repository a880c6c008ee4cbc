"""ONNX files of a network that torch exports, its weights decoded by operators of the graph."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import timm
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.importers.layouts import ARCHITECTURE, network_state

Array = NDArray[Any]
Decoder = Callable[["Graph", str, Array], None]


def export(path: Path) -> None:
    """Write the network with plain weights; torch folds its batch norms into its convolutions."""
    model = timm.create_model(ARCHITECTURE).eval()
    model.load_state_dict(network_state())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (torch.zeros(1, 3, 160, 160),), str(path), dynamo=False)


class Graph:
    """An ONNX file whose plain weights are replaced one by one."""

    def __init__(self, path: Path) -> None:
        self.model = onnx.load(path)
        self.model.opset_import[0].version = 21  # for scales of blocks
        self.nodes: list[onnx.NodeProto] = []
        self.random = np.random.default_rng(3)

    def weights(self) -> list[str]:
        """Names of the weights, in the graph's order."""
        layers = [n for n in self.model.graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
        return [node.input[1] for node in layers]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an initializer."""
        return next(tuple(i.dims) for i in self.model.graph.initializer if i.name == name)

    def replace(self, name: str, decoder: Decoder) -> None:
        """Let a decoder compute a weight of this name."""
        (old,) = [i for i in self.model.graph.initializer if i.name == name]
        self.model.graph.initializer.remove(old)
        decoder(self, name, numpy_helper.to_array(old))

    def add(self, name: str, values: Array) -> str:
        """Add an initializer."""
        self.model.graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def add_as(self, name: str, values: Array, kind: int) -> str:
        """Add an initializer of a type that numpy lacks."""
        tensor = helper.make_tensor(name, kind, values.shape, values.reshape(-1))
        self.model.graph.initializer.append(tensor)
        return name

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node before all of the network's."""
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def save(self, path: Path) -> None:
        """Write the file."""
        nodes = [*self.nodes, *self.model.graph.node]
        del self.model.graph.node[:]
        self.model.graph.node.extend(nodes)
        onnx.save(self.model, path)


def decoded(path: Path, names: list[str]) -> list[Array]:
    """What onnxruntime decodes the weights to."""
    model = onnx.load(path)
    for name in names:
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return list(_session(model).run(names, _images(model)))


def logits(path: Path) -> Array:
    """What onnxruntime answers on the images of `images`."""
    model = onnx.load(path)
    return _session(model).run(None, _images(model))[0]


def images() -> torch.Tensor:
    """One random image."""
    return torch.randn(1, 3, 160, 160, generator=torch.Generator().manual_seed(5))


def _images(model: onnx.ModelProto) -> dict[str, Array]:
    return {model.graph.input[0].name: images().numpy()}


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def bytes_of_a_tensor(graph: Graph, name: str, weight: Array) -> None:
    """uint8 with one scale and a zero point, as onnxruntime.quantization writes them."""
    scale, zero = np.float32(np.ptp(weight) / 255), np.uint8(117)
    codes = np.clip(np.round(weight / scale) + zero, 0, 255).astype(np.uint8)
    parts = [graph.add(name + "_quantized", codes), graph.add(name + "_scale", np.array(scale))]
    graph.node("DequantizeLinear", [*parts, graph.add(name + "_zero", np.array(zero))], name)


def bytes_of_rows(graph: Graph, name: str, weight: Array) -> None:
    """int8 with a scale for each row."""
    flat = np.abs(weight.reshape(len(weight), -1)).max(1)
    scale = (flat / 127).astype(np.float32)
    spread = scale.reshape(-1, *[1] * (weight.ndim - 1))
    codes = np.round(weight / spread).astype(np.int8)
    parts = [graph.add(name + "_quantized", codes), graph.add(name + "_scale", scale)]
    graph.node("DequantizeLinear", parts, name, axis=0)


def half_bytes_of_rows(graph: Graph, name: str, weight: Array) -> None:
    """uint8 with a zero point, and a scale in half precision for each row; cast to float32."""
    codes = graph.random.integers(256, size=weight.shape).astype(np.uint8)
    scale = graph.random.uniform(0.001, 0.002, size=len(weight)).astype(np.float16)
    zeros = np.full(len(weight), 117, dtype=np.uint8)
    parts = [graph.add(name + "_quantized", codes), graph.add(name + "_scale", scale)]
    parts.append(graph.add(name + "_zero", zeros))
    graph.node("Cast", [graph.node("DequantizeLinear", parts, name + "_half", axis=0)], name, to=1)


def half_shorts(graph: Graph, name: str, weight: Array) -> None:
    """int16, of which float16 holds few, and a scale in half precision; cast to float32."""
    codes = graph.random.integers(-4000, 4000, size=weight.shape).astype(np.int16)
    parts = [graph.add(name + "_quantized", codes)]
    parts.append(graph.add(name + "_scale", np.full((), 0.001, dtype=np.float16)))
    graph.node("Cast", [graph.node("DequantizeLinear", parts, name + "_half")], name, to=1)


def bytes_of_rows_with_zeros(graph: Graph, name: str, weight: Array) -> None:
    """uint8 with a scale and a zero point for each row."""
    rows = weight.reshape(len(weight), -1)
    scale = (np.ptp(rows, axis=1) / 255).astype(np.float32)
    zero = np.clip(np.round(-rows.min(1) / scale), 0, 255).astype(np.uint8)
    codes = np.clip(np.round(rows / scale[:, None]) + zero[:, None], 0, 255).astype(np.uint8)
    graph.add(name + "_quantized", codes.reshape(weight.shape))
    parts = [
        name + "_quantized",
        graph.add(name + "_scale", scale),
        graph.add(name + "_zero", zero),
    ]
    graph.node("DequantizeLinear", parts, name, axis=0)


def bytes_of_blocks(graph: Graph, name: str, weight: Array) -> None:
    """int8 with a scale for 32 columns of a row."""
    blocks = weight.reshape(len(weight), -1, 32)
    scale = (np.abs(blocks).max(2) / 127).astype(np.float32)
    codes = np.round(blocks / scale[..., None]).astype(np.int8).reshape(weight.shape)
    parts = [graph.add(name + "_quantized", codes), graph.add(name + "_scale", scale)]
    graph.node("DequantizeLinear", parts, name, axis=1, block_size=32)


def nibbles_of_blocks(graph: Graph, name: str, weight: Array) -> None:
    """uint4 with a scale and a zero point for 32 columns of a row."""
    groups = weight.size // len(weight) // 32
    codes = graph.random.integers(16, size=weight.shape)
    zeros = graph.random.integers(16, size=(len(weight), groups))
    scale = graph.random.uniform(0.5, 2, size=(len(weight), groups)).astype(np.float32)
    parts = [
        graph.add_as(name + "_quantized", codes, TensorProto.UINT4),
        graph.add(name + "_scale", scale),
        graph.add_as(name + "_zero", zeros, TensorProto.UINT4),
    ]
    graph.node("DequantizeLinear", parts, name, axis=1, block_size=32)


def small_floats(graph: Graph, name: str, weight: Array) -> None:
    """Floats of eight bits with a scale for each row."""
    floats = graph.random.normal(size=weight.shape)
    codes = graph.add_as(name + "_quantized", floats, TensorProto.FLOAT8E4M3FN)
    scale = graph.random.uniform(0.5, 2, size=len(weight)).astype(np.float32)
    graph.node("DequantizeLinear", [codes, graph.add(name + "_scale", scale)], name, axis=0)


def vectors(graph: Graph, name: str, weight: Array) -> None:
    """Rows of a half-precision codebook, row by row, behind casts and a reshape."""
    _vectors(graph, name, weight, turned=False)


def vectors_down(graph: Graph, name: str, weight: Array) -> None:
    """Rows of a codebook that lie along columns: decoded to (in, out), then transposed."""
    _vectors(graph, name, weight, turned=True)


def _vectors(graph: Graph, name: str, weight: Array, *, turned: bool) -> None:
    shape = (weight.size // len(weight), len(weight)) if turned else weight.shape
    codes = graph.random.integers(50, size=weight.size // 4).astype(np.uint8)
    book = graph.add(name + ".book", graph.random.normal(size=(50, 4)).astype(np.float16))
    wide = graph.node("Cast", [graph.add(name + ".codes", codes)], name + ".wide", to=7)
    found = graph.node("Gather", [book, wide], name + ".vectors")
    floats = graph.node("Cast", [found], name + ".floats", to=1)
    size = graph.add(name + ".shape", np.array(shape, dtype=np.int64))
    out = graph.node("Reshape", [floats, size], name + ".turned" if turned else name)
    if turned:
        graph.node("Transpose", [out], name, perm=[1, 0])


def nibbles(graph: Graph, name: str, weight: Array) -> None:
    """Entries of a table of 16 values, two codes a byte, and a scale for each row."""
    table = graph.add(name + ".table", np.sort(graph.random.normal(size=16)).astype(np.float32))
    packed = graph.random.integers(256, size=(weight.size // 2, 1)).astype(np.uint8)
    codes = graph.add(name + ".packed", packed)
    mask = graph.add(name + ".mask", np.array(15, dtype=np.uint8))
    four = graph.add(name + ".four", np.array(4, dtype=np.uint8))
    low = graph.node("BitwiseAnd", [codes, mask], name + ".low")
    high = graph.node("BitShift", [codes, four], name + ".high", direction="RIGHT")
    both = graph.node("Concat", [low, high], name + ".both", axis=1)
    size = graph.add(name + ".shape", np.array(weight.shape, dtype=np.int64))
    index = graph.node(
        "Cast", [graph.node("Reshape", [both, size], name + ".index")], name + ".i", to=7
    )
    values = graph.node("Gather", [table, index], name + ".values")
    shape = (len(weight), *[1] * (weight.ndim - 1))
    scale = graph.random.uniform(0.5, 2, size=shape).astype(np.float32)
    graph.node("Mul", [values, graph.add(name + ".scale", scale)], name)

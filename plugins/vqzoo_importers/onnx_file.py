"""ONNX files whose weights are decoded by standard operators."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqzoo.errors import UsageError, VqzooError, one_line
from vqzoo.plugin import ImportedNetwork, Importer, ImportTarget
from vqzoo_importers.graph_network import Constant, GraphLayer, GraphNorm, graph_network
from vqzoo_importers.onnx_constants import Constants, constants_of
from vqzoo_importers.onnx_contents import METADATA, network_of_contents
from vqzoo_importers.tables import TableTensor

_NORM = "BatchNormalization"
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_OTHER_PRODUCTS = ("MatMulNBits", "MatMulInteger", "QLinearMatMul", "ConvInteger", "QLinearConv")


class Onnx(Importer):
    """Conv, Gemm and MatMul whose weights come from DequantizeLinear, or from Gather in a codebook,
    followed by reshaping, transposing and scaling; and weights that are plain initializers. Files
    of `vqzoo export` say themselves what codes they have."""

    name = "onnx"
    summary = "ONNX files whose weights come from DequantizeLinear or Gather"
    source = "onnx.ai; onnxruntime.quantization, and exports with codes"

    def read(self, path: Path, target: ImportTarget) -> ImportedNetwork:
        """Weights belong to layers by their names, or where names say nothing, by their order."""
        model = _load(path)
        limit = 2 * sum(math.prod(shape) for shape in target.shapes.values()) + (1 << 16)
        said = {entry.key: entry.value for entry in model.metadata_props}
        if METADATA in said:
            return network_of_contents(path, said[METADATA], model, target, limit)
        try:
            constants = constants_of(model, limit)
        except VqzooError as error:
            raise VqzooError(f"{path}: {error}") from None
        sums = _sums(model, constants)
        nodes = model.graph.node
        layers = [layer for node in nodes if (layer := _layer(path, node, constants, sums))]
        norms = [_norm(path, node, constants) for node in nodes if node.op_type == _NORM]
        notes = []
        if any(node.op_type == "QuantizeLinear" for node in nodes):
            notes.append("The file rounds activations, too; the artifact does not.")
        plain = {tensor.name for tensor in model.graph.initializer}
        notes += [
            f"{layer.name} is computed in a way that no method here has, and stays dense."
            for layer in layers
            if layer.name not in plain and not isinstance(layer.weight, TableTensor)
        ]
        dense = {key: constants.values[key] for key in target.shapes if key in constants.values}
        licence = said.get("license") or said.get("licence")
        return graph_network(path, layers, norms, dense, target, licence, said.get("origin"), notes)


def _load(path: Path) -> Any:
    try:
        import onnx
    except ImportError:
        raise UsageError("reading ONNX files takes onnx: pip install 'vqzoo[onnx]'") from None
    try:
        return onnx.load(path)
    except Exception as error:  # of a hostile file: anything
        raise VqzooError(f"{path} is no ONNX file that can be read: {one_line(error)}") from None


def _sums(model: Any, constants: Constants) -> dict[str, Constant]:
    """Name of an activation -> the constant that is added to it: the bias of a MatMul."""
    sums: dict[str, Constant] = {}
    for node in model.graph.node:
        if node.op_type == "Add" and len(node.input) == 2:
            for name, other in (node.input, node.input[::-1]):
                if name not in constants.values and other in constants.values:
                    sums[name] = constants.values[other]
    return sums


def _layer(
    path: Path, node: Any, constants: Constants, sums: Mapping[str, Constant]
) -> GraphLayer | None:
    """A node that multiplies by a constant weight.

    Raises:
        VqzooError: it multiplies by integers, or the weight is computed in another way.
    """
    if node.op_type in _OTHER_PRODUCTS:
        raise VqzooError(f"{path}: {node.name or node.output[0]} is a {node.op_type}, not imported")
    if node.op_type not in _LAYERS or len(node.input) < 2 or node.input[0] in constants.values:
        return None
    name = node.input[1]
    weight = constants.values.get(name)
    if weight is None:
        if operator := constants.unknown.get(name):
            raise VqzooError(f"{path}: the weight {name} is computed by {operator}")
        return None  # a product of two activations
    options = {entry.name: entry for entry in node.attribute}
    if node.op_type in ("MatMul", "Gemm"):
        if len(weight.shape) != 2 or any(
            options[name].f != 1 for name in ("alpha", "beta") if name in options
        ):
            raise VqzooError(f"{path}: {node.op_type} of {name} is not the product of a Linear")
        turned = node.op_type == "Gemm" and "transB" in options and options["transB"].i
        weight = weight if turned else weight.transpose((1, 0))
    bias = constants.values.get(node.input[2]) if len(node.input) > 2 else None
    added = sums.get(node.output[0]) if node.op_type == "MatMul" else None
    if added is not None and added.shape == weight.shape[:1]:
        bias = added
    return GraphLayer(name, frozenset({name}) | constants.roots[name], weight, bias)


def _norm(path: Path, node: Any, constants: Constants) -> GraphNorm:
    """A batch norm, whose scale, bias, mean and variance are constant."""
    tensors = [constants.values.get(name) for name in node.input[1:5]]
    known = tuple(value for value in tensors if value is not None)
    if len(known) != 4:
        raise VqzooError(f"{path}: {node.input[1]} is of a batch norm that is not constant")
    eps = next((entry.f for entry in node.attribute if entry.name == "epsilon"), 1e-5)
    return GraphNorm(constants.roots[node.input[1]], eps, known)

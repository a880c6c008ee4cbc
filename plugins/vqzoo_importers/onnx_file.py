"""ONNX files whose weights are decoded by standard operators."""

import math
from pathlib import Path
from typing import Any

from vqzoo.errors import UsageError, VqzooError, one_line
from vqzoo.plugin import ImportedNetwork, Importer, ImportTarget
from vqzoo_importers.graph_network import Constant, GraphLayer, GraphNorm, graph_network, key_of
from vqzoo_importers.onnx_constants import Constants, constants_of
from vqzoo_importers.onnx_contents import METADATA, network_of_contents
from vqzoo_importers.onnx_functions import without_functions
from vqzoo_importers.onnx_products import (
    INTEGER_PRODUCTS,
    Surroundings,
    layer_names,
    layer_of_integers,
    surroundings,
)

_NORM = "BatchNormalization"
_LAYERS = ("Conv", "FusedConv", "ConvTranspose", "Gemm", "MatMul")
_OTHER_PRODUCTS = ("MatMulBnb4", "MatMulFpQ4", "QAttention", "QMoE", "GatherBlockQuantized")
_ROUNDING = {"QuantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeMatMul"}
_INT8_INPUTS = 4  # the accuracy_level of a MatMulNBits that rounds its inputs to int8


class Onnx(Importer):
    """Conv, Gemm and MatMul whose weights come from DequantizeLinear, or from Gather in a codebook,
    followed by reshaping, transposing and scaling; onnxruntime's products of integers; and weights
    that are plain initializers. Files of `vqzoo export` say themselves what codes they have."""

    name = "onnx"
    summary = "ONNX files that onnxruntime quantized, or whose weights come from Gather"
    source = "onnx.ai; onnxruntime.quantization, and exports with codes"

    def read(self, path: Path, target: ImportTarget) -> ImportedNetwork:
        """Weights belong to layers by their names, or where names say nothing, by their order."""
        model = _load(path)
        limit = 2 * sum(math.prod(shape) for shape in target.shapes.values()) + (1 << 16)
        said = {entry.key: entry.value for entry in model.metadata_props}
        if METADATA in said:
            return network_of_contents(path, said[METADATA], model, target, limit)
        try:
            model = without_functions(model)
            constants = constants_of(model, limit)
        except VqzooError as error:
            raise VqzooError(f"{path}: {error}") from None
        graph, nodes = surroundings(model, constants), model.graph.node
        layers = [layer for node in nodes if (layer := _layer(path, node, graph, target))]
        norms = [_norm(path, node, constants) for node in nodes if node.op_type == _NORM]
        notes = []
        if any(map(_rounds_activations, nodes)):
            notes.append("The file rounds activations, too; the artifact does not.")
        dense, by_shape = _dense(model, constants, target)
        notes += by_shape
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


def _rounds_activations(node: Any) -> bool:
    levels = [entry.i for entry in node.attribute if entry.name == "accuracy_level"]
    return node.op_type in _ROUNDING or levels == [_INT8_INPUTS]


def _values(key: str, constants: Constants) -> Constant | None:
    """The constant of a name; onnxruntime rounds tensors other than weights to integers, too."""
    if key in constants.values:
        return constants.values[key]
    return constants.dequantized(f"{key}_quantized", f"{key}_scale", f"{key}_zero_point")


def _dense(
    model: Any, constants: Constants, target: ImportTarget
) -> tuple[dict[str, Constant], list[str]]:
    """Constants by the keys whose names they have, and lines for the user.

    A class token that an exporter has expanded has lost its name: if one key alone lacks values of
    its shape, of three dimensions or more, and one constant alone has that shape, they belong
    together.
    """
    named = {key: _values(key, constants) for key in target.shapes}
    dense = {key: value for key, value in named.items() if value is not None}
    notes = []
    lacking = [key for key, shape in target.shapes.items() if len(shape) > 2 and key not in dense]
    lacking = [key for key in lacking if key not in target.layers]
    names = {tensor.name.removesuffix("_quantized") for tensor in model.graph.initializer}
    for key in lacking:
        shape = target.shapes[key]
        candidates = [
            (name, value)
            for name in sorted(names - dense.keys())
            if (value := _values(name, constants)) is not None and value.shape == shape
        ]
        if len(candidates) == 1 and [target.shapes[other] for other in lacking].count(shape) == 1:
            ((name, dense[key]),) = candidates
            notes.append(f"{key} is the constant {name}, which alone has its shape.")
    return dense, notes


def _layer(path: Path, node: Any, graph: Surroundings, target: ImportTarget) -> GraphLayer | None:
    """A node that multiplies by a constant weight.

    Raises:
        VqzooError: it multiplies by integers that are not imported, or the weight is computed in
            another way.
    """
    constants = graph.constants
    if node.op_type in INTEGER_PRODUCTS:
        try:
            return layer_of_integers(node, graph)
        except VqzooError as error:
            raise VqzooError(f"{path}: {error}") from None
    if node.op_type in _OTHER_PRODUCTS:
        raise VqzooError(f"{path}: {node.name or node.output[0]} is a {node.op_type}, not imported")
    if node.op_type not in _LAYERS or len(node.input) < 2 or node.input[0] in constants.values:
        return None
    name = node.input[1]
    weight = constants.values.get(name)
    if weight is None:
        if operator := constants.unknown.get(name):
            key = key_of(constants.roots[name], target) or name
            raise VqzooError(
                f"{path}: the weight {key} is computed by {operator}, which is not imported"
            )
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
    if node.op_type == "MatMul":
        bias = graph.added(node.output[0], weight.shape[0])
    computed = name not in constants.plain
    return GraphLayer(name, layer_names(node, name, constants), weight, bias, computed)


def _norm(path: Path, node: Any, constants: Constants) -> GraphNorm:
    """A batch norm, whose scale, bias, mean and variance are constant."""
    tensors = [constants.values.get(name) for name in node.input[1:5]]
    known = tuple(value for value in tensors if value is not None)
    if len(known) != 4:
        raise VqzooError(f"{path}: {node.input[1]} is of a batch norm that is not constant")
    eps = next((entry.f for entry in node.attribute if entry.name == "epsilon"), 1e-5)
    return GraphNorm(constants.roots[node.input[1]], eps, known)

"""ONNX files whose weights are decoded by standard operators."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqzoo.errors import UsageError, VqzooError, one_line
from vqzoo.plugin import ImportedNetwork, Importer, ImportTarget, MethodCode
from vqzoo_importers.matching import GraphLayer, match_layers
from vqzoo_importers.norms import identity_norm, norm_after
from vqzoo_importers.onnx_constants import Constant, Constants, constants_of
from vqzoo_importers.tables import TableTensor, table_code

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class Onnx(Importer):
    """Conv, Gemm and MatMul whose weights come from DequantizeLinear, or from Gather in a codebook,
    followed by reshaping, transposing and scaling; and weights that are plain initializers."""

    name = "onnx"
    summary = "ONNX files whose weights come from DequantizeLinear or Gather"
    source = "onnx.ai; onnxruntime.quantization, and exports with codes"

    def read(self, path: Path, target: ImportTarget) -> ImportedNetwork:
        """Weights belong to layers by their names, or where names say nothing, by their order."""
        model = _load(path)
        limit = 2 * sum(math.prod(shape) for shape in target.shapes.values()) + (1 << 16)
        try:
            constants = constants_of(model, limit)
        except VqzooError as error:
            raise VqzooError(f"{path}: {error}") from None
        sums = _sums(model, constants)
        nodes = model.graph.node
        found = [layer for node in nodes if (layer := _layer(path, node, constants, sums))]
        layers: dict[str, MethodCode] = {}
        tensors: dict[str, Tensor] = {}
        notes: list[str] = []
        if any(node.op_type == "QuantizeLinear" for node in nodes):
            notes.append("The file rounds activations, too; the artifact does not.")
        for key, layer in match_layers(path, found, target).items():
            weight = layer.weight.reshape(target.shapes[key])
            code = table_code(weight) if isinstance(weight, TableTensor) else None
            if code is not None:
                layers[key] = code
            else:
                tensors[key] = _tensor(weight)
                if isinstance(weight, TableTensor):
                    notes.append(f"{key} stays dense: no method here has such codes.")
            tensors |= _bias(path, key, layer, target)
        tensors |= _norms(path, model, constants, target)
        for key, shape in target.shapes.items():
            value = constants.values.get(key)
            if value is not None and key not in layers and value.shape == shape:
                tensors.setdefault(key, _tensor(value))
        said = {entry.key: entry.value for entry in model.metadata_props}
        licence = said.get("license") or said.get("licence")
        return ImportedNetwork(layers, tensors, licence, said.get("origin"), tuple(notes))


def _load(path: Path) -> Any:
    try:
        import onnx
    except ImportError:
        raise UsageError("reading ONNX files takes onnx: pip install 'vqzoo[onnx]'") from None
    try:
        return onnx.load(path)
    except Exception as error:  # of a hostile file: anything
        raise VqzooError(f"{path} is no ONNX file that can be read: {one_line(error)}") from None


def _tensor(value: Constant) -> Tensor:
    values = value.values() if isinstance(value, TableTensor) else value
    return torch.from_numpy(np.array(values, order="C"))


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
    """A node that multiplies by a constant weight."""
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


def _bias(path: Path, key: str, layer: GraphLayer, target: ImportTarget) -> dict[str, Tensor]:
    """A layer's bias; where the network has none, that of a batch norm which was folded."""
    if layer.bias is None:
        return {}
    bias, name = _tensor(layer.bias), f"{key.removesuffix('.weight')}.bias"
    if name in target.shapes:
        return {name: bias}
    norm = norm_after(key, target)
    if norm is None or bias.shape != target.shapes[f"{norm}.bias"]:
        raise VqzooError(f"{path}: {layer.name} has a bias, and {key} of the network has none")
    return identity_norm(norm, bias, target.norms[norm])


def _norms(path: Path, model: Any, constants: Constants, target: ImportTarget) -> dict[str, Tensor]:
    """Batch norms that are nodes of the graph, by the names of their initializers or in order."""
    nodes = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    named = [_norm_name(node.input[1], constants, target) for node in nodes]
    if None in named or len(set(named)) < len(named):
        named = list(target.norms)
        if len(nodes) != len(named):
            raise VqzooError(f"{path} has {len(nodes)} batch norms, the network {len(named)}")
    tensors: dict[str, Tensor] = {}
    for node, norm in zip(nodes, named, strict=True):
        assert norm is not None
        eps = next((entry.f for entry in node.attribute if entry.name == "epsilon"), 1e-5)
        if not math.isclose(eps, target.norms[norm], rel_tol=1e-4):
            raise VqzooError(f"{path}: {norm} has eps={eps:g}, the network's {target.norms[norm]}")
        for field, name in zip(
            ("weight", "bias", "running_mean", "running_var"), node.input[1:5], strict=True
        ):
            if name not in constants.values:
                raise VqzooError(f"{path}: {name} of {norm} is not constant")
            tensors[f"{norm}.{field}"] = _tensor(constants.values[name])
    return tensors


def _norm_name(name: str, constants: Constants, target: ImportTarget) -> str | None:
    roots = constants.roots.get(name, frozenset())
    paths = [p for p in target.norms if any(root.startswith(p + ".") for root in roots)]
    return max(paths, key=len, default=None)

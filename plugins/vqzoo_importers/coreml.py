"""Core ML packages with palettized or quantized weights."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vqzoo.errors import VqzooError
from vqzoo.plugin import ImportedNetwork, Importer, ImportTarget
from vqzoo_importers.coded.factors import FactoredTensor
from vqzoo_importers.coreml_program import Operation, read_program
from vqzoo_importers.coreml_values import Values
from vqzoo_importers.graph_network import Coded, Constant, GraphLayer, GraphNorm, graph_network

_LAYERS = ("conv", "conv_transpose", "linear")
_NORM = ("gamma", "beta", "mean", "variance")
_FACTOR = re.compile(r"(\w+)_([01])_weight_to_fp16")  # as `vqzoo export` names those of svd
_HALF = "_to_fp16"  # ends the names of constants that coremltools has rounded


class CoreMl(Importer):
    """Programs whose weights are looked up in tables of scalars or vectors, or are integers times
    scales, in float32 or float16, or floats; pruned or not."""

    name = "coreml"
    summary = ".mlpackage folders that coremltools palettized, quantized or pruned"
    source = "coremltools, coremltools.optimize"

    def read(self, path: Path, target: ImportTarget) -> ImportedNetwork:
        """Weights belong to layers by their names, or where names say nothing, by their order."""
        limit = 2 * sum(math.prod(shape) for shape in target.shapes.values()) + (1 << 16)
        program = read_program(path, limit)
        values = Values(path, limit, program.by_vqzoo)
        layers: list[tuple[Operation, GraphLayer]] = []
        norms: list[GraphNorm] = []
        for operation in program.operations:
            values.take(operation)
            if operation.kind in _LAYERS and "weight" in operation.inputs:
                layers.append((operation, _layer(path, operation, values, target)))
            if operation.kind == "batch_norm":
                norms.append(_norm(path, operation, values, target))
        dense = _dense(values, target)
        factors, notes = _factors_of_channels(program.operations, values, dense, target)
        joined = _joined(path, layers, target) if program.by_vqzoo else [one for _, one in layers]
        licence = program.licence
        return graph_network(path, joined, norms, dense | factors, target, licence, notes=notes)


def _dense(values: Values, target: ImportTarget) -> dict[str, Constant]:
    """Constants by the keys whose names they have."""
    names = {key: key.replace(".", "_") for key in target.shapes}
    named = {
        key: values.known.get(name, values.known.get(name + _HALF)) for key, name in names.items()
    }
    return {key: value for key, value in named.items() if value is not None}


def _factors_of_channels(
    operations: Sequence[Operation],
    values: Values,
    dense: Mapping[str, Constant],
    target: ImportTarget,
) -> tuple[dict[str, Constant], list[str]]:
    """Vectors that multiply channels, as LayerScale's do, by key, and a line for the user.

    coremltools reshapes such a vector, which loses its name. The order decides if the network lacks
    as many vectors, of the same sizes.
    """
    known = [values.known.get(o.inputs.get("y", "")) for o in operations if o.kind == "mul"]
    vectors = [
        value.reshape(-1)
        for value in known
        if isinstance(value, np.ndarray) and 1 < value.size == max(value.shape)
    ]
    lacking = [
        key for key, shape in target.shapes.items()
        if len(shape) == 1 and key not in dense and not _has_its_own(key, target)
    ]  # fmt: skip
    if not lacking or [vector.shape for vector in vectors] != [target.shapes[k] for k in lacking]:
        return {}, []
    note = f"{lacking[0]} and the like, {len(lacking)} vectors, have lost their names: by order."
    return dict(zip(lacking, vectors, strict=True)), [note]


def _has_its_own(key: str, target: ImportTarget) -> bool:
    """Whether a layer or a batch norm of the graph brings this vector."""
    module = key.rpartition(".")[0]
    return module in target.norms or f"{module}.weight" in target.layers


def _layer(path: Path, operation: Operation, values: Values, target: ImportTarget) -> GraphLayer:
    name = operation.inputs["weight"]
    bias = operation.inputs.get("bias")
    constant = None if bias is None else values.of(bias)
    return GraphLayer(name, _keys(name, target.layers), values.of(name), constant)


def _joined(
    path: Path, layers: Sequence[tuple[Operation, GraphLayer]], target: ImportTarget
) -> list[GraphLayer]:
    """Layers, pairs of which are one of the network's: `vqzoo export` writes a weight PATH.weight
    that is a product as PATH.0.weight and PATH.1.weight.

    Raises:
        VqzooError: two such layers do not follow each other, or are no product.
    """
    keys = {layer.name.replace(".", "_"): key for key, layer in target.layers.items()}
    joined: list[GraphLayer] = []
    pending: tuple[str, Operation, GraphLayer] | None = None
    for operation, layer in layers:
        name, place = _factor_of(layer, keys)
        if pending is None and place == 0 and name is not None:
            pending = (name, operation, layer)
            continue
        if pending is not None:
            key, first, right = pending
            if name != key or place != 1 or operation.inputs.get("x") != first.output:
                raise VqzooError(f"{path}: no second factor follows {right.name}")
            layer = _product(path, key, right, layer)
            pending = None
        joined.append(layer)
    if pending is not None:
        raise VqzooError(f"{path}: no second factor follows {pending[2].name}")
    return joined


def _factor_of(layer: GraphLayer, keys: Mapping[str, str]) -> tuple[str | None, int]:
    """The key of the weight that a layer's is a factor of, and which; None if it is none."""
    factor = _FACTOR.fullmatch(layer.name)
    if factor is None or layer.names != {layer.name}:  # a layer of the network has its name
        return None, 0
    return keys.get(factor[1]), int(factor[2])


def _product(path: Path, key: str, first: GraphLayer, second: GraphLayer) -> GraphLayer:
    right, left = (
        one.weight.values() if isinstance(one.weight, Coded) else one.weight
        for one in (first, second)
    )
    bias = first.bias.values() if isinstance(first.bias, Coded) else first.bias
    if (
        left.ndim not in (2, 4)
        or left.ndim != right.ndim
        or left.shape[1:] != (len(right), *[1] * (left.ndim - 2))
        or (bias is not None and bias.any())
    ):
        raise VqzooError(f"{path}: {first.name} and {second.name} are not two factors")
    tensor = FactoredTensor(left.reshape(left.shape[:2]), right)
    return GraphLayer(second.name, frozenset({key}), tensor, second.bias)


def _norm(path: Path, operation: Operation, values: Values, target: ImportTarget) -> GraphNorm:
    tensors = [values.of(operation.inputs.get(part, part)) for part in _NORM]
    eps = values.of(operation.inputs.get("epsilon", "epsilon"))
    number = float(np.asarray(eps.values() if isinstance(eps, Coded) else eps).reshape(-1)[0])
    names = _keys(operation.inputs["gamma"], target.shapes)
    return GraphNorm(names, number, tuple(tensors))


def _keys(name: str, keys: Any) -> frozenset[str]:
    """The key whose dots coremltools replaced in a name that may go on, "fc_weight_palettized"."""
    longest = max(
        (key for key in keys if (name + "_").startswith(key.replace(".", "_") + "_")),
        key=len,
        default=None,
    )
    return frozenset({name} if longest is None else {longest})

"""Graphs of ONNX without what the exporter leaves in them, which outweighs small networks."""

import re
from collections.abc import Iterable
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vqzoo.network.export.halves import stored_half

if TYPE_CHECKING:
    import onnx_ir

FOLDED = 64
"""Elements up to which constants are folded: shapes and the like, but no weights."""

_SHARED = 4096  # elements of initializers that are compared with each other
_CODES = re.compile(r"\.parametrizations\.(\w+)\.0\.(?!lifted_tensor)")  # of `PackedWeight`
_HIDDEN = "vqzoo"  # a domain whose operators the optimizer does not know
# What attributes of convolutions are in all places where they are missing.
_EMPTY = {"strides": 1, "dilations": 1, "pads": 0}


def simplify(graph: "onnx_ir.Model", *, keep_norms: bool) -> None:
    """Remove what computes shapes, repeats, and the trace of torch's source lines.

    Args:
        graph: is changed.
        keep_norms: leave batch norms out of the convolutions before them: products with their
            scales are no longer values that float16 holds, nor the artifact's.
    """
    import onnx_ir
    from onnx_ir.passes import common
    from onnxscript import optimizer

    hidden = [
        node
        for node in graph.graph
        if (keep_norms and node.op_type == "BatchNormalization") or _reads_codes(node)
    ]
    for node in hidden:
        node.domain = _HIDDEN
    optimizer.optimize_ir(
        graph, onnx_shape_inference=False, input_size_limit=FOLDED, output_size_limit=FOLDED
    )
    for node in hidden:
        node.domain = ""
    onnx_ir.passes.Sequential(
        common.DeduplicateInitializersPass(size_limit=_SHARED),
        common.IdentityEliminationPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.ClearMetadataAndDocStringPass(),
    )(graph)
    for node in graph.graph:
        _drop_defaults(node)


def store_halves(graph: "onnx_ir.Model") -> None:
    """Store float32 constants as float16 where that changes no value."""
    import onnx_ir

    first = graph.graph[0]
    for name, value in list(graph.graph.initializers.items()):
        values = value.const_value
        if values is None or values.dtype != onnx_ir.DataType.FLOAT:
            continue
        half = stored_half(torch.from_numpy(np.array(values.numpy())))
        if half is None:
            continue
        stored = onnx_ir.Value(name=f"{name}.half", const_value=onnx_ir.tensor(half.numpy()))
        stored.shape, stored.type = value.shape, onnx_ir.TensorType(onnx_ir.DataType.FLOAT16)
        cast = onnx_ir.node("Cast", [stored], attributes={"to": onnx_ir.DataType.FLOAT})
        cast.outputs[0].name = f"{name}.single"
        onnx_ir.convenience.replace_all_uses_with(value, cast.outputs[0])
        del graph.graph.initializers[name]
        graph.graph.register_initializer(stored)
        graph.graph.insert_before(first, cast)


def shorten_names(graph: "onnx_ir.Model", keys: Iterable[str]) -> None:
    """Number what nodes compute, and constants that are none of the network's tensors; take torch's
    own words out of the other names, and leave nodes, whose names are optional, without any.

    In small networks, names take more space than codes.

    Args:
        graph: is changed.
        keys: of the network's state dict.
    """
    outputs, initializers = set(graph.graph.outputs), graph.graph.initializers
    known = set(keys)
    for name, value in list(initializers.items()):
        short = _CODES.sub(r".\1.", name)
        if short != name and short not in initializers:
            value.name = short
            known.add(short)
    numbered = (name for i in count() if (name := f"c{i}") not in initializers)
    for name, value in list(initializers.items()):
        if name.removesuffix(".half") not in known:
            value.name = next(numbered)
    numbered = (name for i in count() if (name := f"v{i}") not in initializers)
    for node in graph.graph:
        node.name = ""
        for value in node.outputs:
            if value not in outputs:
                value.name = next(numbered)


def _reads_codes(node: "onnx_ir.Node") -> bool:
    """Whether a node reads a part of a code. Folded, small ones would be in wider types, and each
    layer would be decoded by other operators."""
    return any(value is not None and _CODES.search(value.name or "") for value in node.inputs)


def _drop_defaults(node: "onnx_ir.Node") -> None:
    """Drop attributes that say what is so without them."""
    import onnx
    import onnx_ir

    if node.domain:
        return
    schema = onnx.defs.get_schema(node.op_type, node.graph.opset_imports[""])
    for name, attribute in list(node.attributes.items()):
        written = onnx_ir.to_proto(attribute)
        default = schema.attributes[name].default_value
        everywhere = node.op_type == "Conv" and set(written.ints) == {_EMPTY.get(name)}
        if everywhere or onnx.helper.get_attribute_value(written) == _value(default):
            del node.attributes[name]
        elif node.op_type == "Reshape" and name == "allowzero":
            shape = node.inputs[1].const_value if node.inputs[1] is not None else None
            if shape is not None and 0 not in shape.numpy():
                del node.attributes[name]


def _value(default: Any) -> Any:
    """The value of a default, None if there is none."""
    import onnx

    return onnx.helper.get_attribute_value(default) if default.type else None

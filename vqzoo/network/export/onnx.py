"""ONNX files: weights decoded by standard operators inside the graph, or dense."""

import re
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from vqzoo.errors import VqzooError, one_line
from vqzoo.network.export.compare import TOLERANCE, compare, example_images
from vqzoo.network.export.halves import stored_half
from vqzoo.network.export.onnx_contents import METADATA, network_contents
from vqzoo.network.export.onnx_packed import Inputs, multiply_packed
from vqzoo.network.export.packed_weight import packed_codes
from vqzoo.network.export.record import Written

if TYPE_CHECKING:
    import onnx_ir

FILE = "model.onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSET = 20
INT8_TOLERANCE = 1e-1  # of the largest logit, with inputs of 8 bits
# Constants are folded up to so many elements: shapes and the like, but no weights.
_FOLDED = 64
_SHARED = 4096  # elements of initializers that are compared with each other


def write_onnx(
    model: nn.Module, dense: nn.Module, folder: Path, inputs: Inputs | None = None
) -> Written:
    """Write model.onnx for any batch size, and run it with onnxruntime.

    float32 constants whose values float16 holds exactly are stored as float16. With codes, the
    file's metadata says which initializers hold them, for `vqzoo import`.

    Args:
        model: the network, its weights dense or decoded by its own operations.
        dense: another copy of the network, with decoded weights.
        folder: where to write.
        inputs: of Linear layers that onnxruntime multiplies by packed integers, see `onnx_packed`;
            None leaves all weights to standard operators.

    Raises:
        VqzooError: torch cannot export the network, the file computes something else, or no layer
            has integers to multiply by.
    """
    import onnx
    import onnx_ir

    packed = multiply_packed(model, inputs) if inputs is not None else None
    program: Any = _exported(model)
    graph: onnx_ir.Model = program.model
    codes = packed_codes(model)
    _simplify(graph, keep_norms=bool(codes))
    _store_halves(graph)
    _shorten_names(graph)
    if codes:
        contents = network_contents(graph.graph, codes, dense.state_dict(), _FOLDED)
        if contents is not None:
            graph.metadata_props[METADATA] = contents
    proto = onnx_ir.to_proto(graph)
    proto.graph.ClearField("value_info")  # runtimes infer shapes and types; they take space
    onnx.save(proto, folder / FILE)
    onnx.checker.check_model(str(folder / FILE), full_check=True)
    runtime = f"onnxruntime {version('onnxruntime')}"
    tolerance = INT8_TOLERANCE if inputs == "int8" else TOLERANCE
    check = compare(_runner(folder / FILE), dense, runtime, FILE, tolerance)
    facts: tuple[tuple[str, int | str], ...] = (("opset", OPSET), ("ir_version", graph.ir_version))
    if packed is None:
        return Written(check, facts)
    facts += (("packed_layers", len(packed)), ("inputs", str(inputs)))
    others = len(codes) - len(packed)
    note = f"onnxruntime alone reads this file. Layers whose codes it keeps packed: {len(packed)}"
    return Written(check, facts, notes=(f"{note}; layers that it decodes at load: {others}.",))


def _exported(model: nn.Module) -> object:
    try:
        return torch.onnx.export(
            model,
            (example_images(model, 2),),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=65536)},),
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            optimize=False,  # it would fold decoding into dense weights
            verbose=False,
        )
    except Exception as error:
        raise VqzooError(f"torch cannot export this network to ONNX: {one_line(error)}") from error


def _simplify(graph: "onnx_ir.Model", *, keep_norms: bool) -> None:
    """Remove what computes shapes, repeats, and the trace of torch's source lines.

    Args:
        graph: is changed.
        keep_norms: leave batch norms out of the convolutions before them: products with their
            scales are no longer values that float16 holds, nor the artifact's.
    """
    import onnx_ir
    from onnx_ir.passes import common
    from onnxscript import optimizer

    norms = [node for node in graph.graph if keep_norms and node.op_type == "BatchNormalization"]
    for norm in norms:
        norm.domain = "vqzoo"  # the optimizer knows no such operator
    optimizer.optimize_ir(
        graph, onnx_shape_inference=False, input_size_limit=_FOLDED, output_size_limit=_FOLDED
    )
    for norm in norms:
        norm.domain = ""
    onnx_ir.passes.Sequential(
        common.DeduplicateInitializersPass(size_limit=_SHARED),
        common.IdentityEliminationPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.ClearMetadataAndDocStringPass(),
    )(graph)


def _store_halves(graph: "onnx_ir.Model") -> None:
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


def _shorten_names(graph: "onnx_ir.Model") -> None:
    """Number nodes and what they compute, and take torch's own words out of initializers' names.

    In small networks, names take more space than codes.
    """
    outputs, initializers = set(graph.graph.outputs), graph.graph.initializers
    numbered = (name for i in count() if (name := f"v{i}") not in initializers)
    for place, node in enumerate(graph.graph):
        node.name = f"n{place}"
        for value in node.outputs:
            if value not in outputs:
                value.name = next(numbered)
    for name, value in list(initializers.items()):
        short = re.sub(r"\.parametrizations\.(\w+)\.0\.", r".\1.", name)
        if short not in initializers:
            value.name = short


def _runner(path: Path) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run(None, {"images": images.numpy()})
        return torch.from_numpy(logits)

    return run

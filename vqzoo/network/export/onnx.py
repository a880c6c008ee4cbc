"""ONNX files: weights decoded by standard operators inside the graph, or dense."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vqzoo.errors import VqzooError, one_line
from vqzoo.network.export.compare import TOLERANCE, compare, example_images
from vqzoo.network.export.onnx_contents import METADATA, network_contents
from vqzoo.network.export.onnx_functions import share_decoding
from vqzoo.network.export.onnx_packed import Inputs, multiply_packed
from vqzoo.network.export.onnx_simplify import FOLDED, shorten_names, simplify, store_halves
from vqzoo.network.export.packed_weight import packed_codes
from vqzoo.network.export.record import Written

FILE = "model.onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSET = 20
INT8_TOLERANCE = 1e-1  # of the largest logit, with inputs of 8 bits


def write_onnx(
    model: nn.Module,
    dense: nn.Module,
    folder: Path,
    inputs: Inputs | None = None,
    *,
    functions: bool = True,
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
        functions: whether layers may share what decodes them, see `onnx_functions`.

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
    simplify(graph, keep_norms=bool(codes))
    store_halves(graph)
    shorten_names(graph, dense.state_dict())
    contents = network_contents(graph.graph, codes, dense.state_dict(), FOLDED) if codes else None
    if contents is not None:
        graph.metadata_props[METADATA] = contents.text
    proto = onnx_ir.to_proto(graph)
    proto.graph.ClearField("value_info")  # runtimes infer shapes and types; they take space
    if codes and functions:
        methods = {key: code.method for key, code in codes.items()}
        proto = share_decoding(proto, methods, contents.initializers if contents else ())
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


def _runner(path: Path) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run(None, {"images": images.numpy()})
        return torch.from_numpy(logits)

    return run

"""OpenVINO's IR, with codes that OpenVINO decodes when it compiles the network."""

import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from vqzoo.artifact.files import write_text
from vqzoo.errors import VqzooError, one_line
from vqzoo.network.export import onnx
from vqzoo.network.export.compare import TOLERANCE, compare
from vqzoo.network.export.record import Written

FILES = "model.*"
PACKAGES = (*onnx.PACKAGES, "openvino")
_GRAPH, _WEIGHTS = "model.xml", "model.bin"


def write_openvino(model: nn.Module, dense: nn.Module, folder: Path) -> Written:
    """Write model.xml and model.bin for any batch size, and run them with OpenVINO on the CPU.

    The network comes by way of ONNX. `openvino.convert_model` would fold constants, and so decode
    the weights; reading the file and writing it does not.

    Args:
        model: the network, its weights dense or decoded by its own operations.
        dense: another copy of the network, with decoded weights.
        folder: where to write.

    Raises:
        VqzooError: torch cannot export the network, OpenVINO cannot read it, or what was written
            computes something else.
    """
    import openvino

    onnx.write_onnx(model, dense, folder, functions=False)  # which OpenVINO does not read
    source = folder / onnx.FILE
    try:
        network = openvino.Core().read_model(source)
        openvino.serialize(network, folder / _GRAPH, folder / _WEIGHTS)
    except RuntimeError as error:
        raise VqzooError(f"OpenVINO cannot read this network: {_reason(error)}") from error
    del network  # it may have mapped the file into memory
    source.unlink()
    text = (folder / _GRAPH).read_text(encoding="utf-8")
    write_text(folder / _GRAPH, re.sub(r">\s+<", "><", text))
    runtime = f"OpenVINO {version('openvino')}"
    check = compare(_runner(folder / _GRAPH), dense, runtime, _GRAPH, TOLERANCE)
    return Written(check, (("openvino", version("openvino")),))


def _runner(path: Path) -> Callable[[Tensor], Tensor]:
    import openvino

    # Its defaults would be bfloat16, where a processor has it, and inputs of 8 bits for products
    # whose weights it takes for quantized ones, such as diba's.
    exact = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    try:
        compiled = openvino.Core().compile_model(path, "CPU", exact)
    except RuntimeError as error:
        raise VqzooError(
            "OpenVINO cannot run what this network decodes its weights by: export it with "
            f"--weights dense, or --to onnx ({_reason(error)})"
        ) from error

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(compiled(images.numpy())[0].copy())

    return run


def _reason(error: RuntimeError) -> str:
    """What OpenVINO says, without the places in its source that come first."""
    lines = str(error).strip().splitlines()
    reasons = [line for line in lines if not line.startswith("Exception from ")]
    return one_line(RuntimeError(*(reasons or lines)[:1]))

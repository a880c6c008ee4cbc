"""A layer's weight and statistics, as a file that workers read."""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from vqzoo.artifact.writer import write_tensors
from vqzoo.compression.plugin_calls import Statistics
from vqzoo.plugin.second_order import SecondOrder


def layer_tensors(weight: Tensor, statistics: Statistics | None) -> dict[str, Tensor]:
    """The tensors of a layer's file."""
    tensors = {"weight": weight}
    if statistics is None:
        return tensors
    if statistics.inputs is not None:
        tensors["inputs"] = statistics.inputs
    if statistics.second_order is not None:
        tensors["row_weights"] = statistics.second_order.row_weights
        blocks = enumerate(statistics.second_order.hessian)
        tensors |= {f"hessian.{number}": block for number, block in blocks}
    return tensors


def write_layer(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a layer's file.

    Raises:
        VqzooError: the disk is full.
    """
    write_tensors(path, {name: tensor.contiguous() for name, tensor in tensors.items()}, {})


def read_layer(path: Path, *, calibrated: bool) -> tuple[Tensor, Statistics | None]:
    """A layer's weight and statistics; the latter are None unless it was calibrated.

    Raises:
        OSError: the file cannot be read.
    """
    # Copies, aligned as torch aligns them: some BLAS round by alignment.
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    weight = tensors["weight"]
    if not calibrated:
        return weight, None
    blocks = [tensors[name] for name in _block_names(tensors)]
    second_order = SecondOrder(tuple(blocks), tensors["row_weights"]) if blocks else None
    return weight, Statistics(tensors.get("inputs"), second_order)


def _block_names(tensors: dict[str, Tensor]) -> list[str]:
    count = sum(name.startswith("hessian.") for name in tensors)
    return [f"hessian.{number}" for number in range(count)]

"""The constants of an ONNX graph, those that operators compute from initializers included."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqzoo.errors import VqzooError
from vqzoo_importers.coded.integers import MOST_LEVELS, integers_times
from vqzoo_importers.coded.tables import TableTensor

Array = NDArray[Any]
Constant = Array | TableTensor

# What they return is at most as large as all that they are given, broadcasting apart.
_SHAPE_OPERATORS = {
    "Identity", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice",
}  # fmt: skip
_ARITHMETIC = {
    "Add", "Sub", "Mul", "Div", "Mod", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor",
}  # fmt: skip
_OTHERS = {"Cast", "Concat", "Constant", "Gather", "DequantizeLinear", "Expand"}
_KNOWN = _SHAPE_OPERATORS | _ARITHMETIC | _OTHERS
_FLOAT = 1  # of TensorProto


@dataclass(frozen=True)
class Constants:
    """The constants of a graph.

    Attributes:
        values: tensor name -> array, or entries of a table.
        roots: tensor name -> names of the initializers that it was computed from.
        unknown: tensor name -> the operator that would compute it from constants, and that is none
            of those known here.
    """

    values: Mapping[str, Constant]
    roots: Mapping[str, frozenset[str]]
    unknown: Mapping[str, str]

    def dequantized(self, codes: str, scale: str, zero: str) -> Array | None:
        """What three constants of these names stand for: integers with one scale and one zero
        point; None if there are no such constants."""
        arrays = [plain_array(self.values.get(name)) for name in (codes, scale, zero)]
        integers, factor, start = arrays
        if integers is None or factor is None or factor.size != 1:
            return None
        return plain_array(integers_times(integers, factor, start, 0, 0))


def constants_of(model: Any, limit: int) -> Constants:
    """Evaluate what follows from initializers alone.

    Args:
        model: an onnx.ModelProto.
        limit: elements that a constant may have; a larger one is refused before it is computed.

    Raises:
        VqzooError: a constant would be larger, or cannot be computed; names it.
    """
    from onnx import numpy_helper

    values: dict[str, Constant] = {}
    for tensor in model.graph.initializer:
        _bound(tensor.name, tuple(tensor.dims), limit)
        values[tensor.name] = numpy_helper.to_array(tensor)
    roots = {name: frozenset([name]) for name in values}
    unknown: dict[str, str] = {}
    opsets: dict[str, int] = {entry.domain: entry.version for entry in model.opset_import}
    for node in model.graph.node:
        names = [name for name in node.input if name]
        computed = all(name in values for name in names) and (names or node.op_type == "Constant")
        if not computed or len(node.output) != 1:
            continue
        output = node.output[0]
        if (node.domain, node.op_type) == ("com.microsoft", "DequantizeLinear"):
            node = _standard(node)
        if node.op_type not in _KNOWN or node.domain not in ("", "ai.onnx"):
            unknown[output] = node.op_type
            continue
        inputs = [values[name] if name else None for name in node.input]
        try:
            values[output] = _evaluate(node, inputs, opsets, limit)
        except VqzooError:
            raise
        except Exception as error:  # of a hostile graph: anything
            text = " ".join(str(error).split())[:200]
            raise VqzooError(f"{node.op_type} cannot compute {output}: {text}") from None
        roots[output] = frozenset().union(*(roots[name] for name in names))
    return Constants(values, roots, unknown)


def _standard(node: Any) -> Any:
    """onnxruntime's operator as the standard one of that name, which does the same."""
    copy = type(node)()
    copy.CopyFrom(node)
    copy.domain = ""
    return copy


def _bound(name: str, shape: tuple[int, ...], limit: int) -> None:
    if math.prod(shape) > limit:
        raise VqzooError(f"{name} has the shape {shape}, far larger than the network")


def _evaluate(
    node: Any, inputs: list[Constant | None], opsets: Mapping[str, int], limit: int
) -> Constant:
    def run(*arrays: Array | None) -> Array:
        from onnx.reference import ReferenceEvaluator

        names = [name if name else "" for name in node.input]
        feeds = {n: a for n, a in zip(names, arrays, strict=True) if n and a is not None}
        evaluator: Any = ReferenceEvaluator(node, opsets=dict(opsets))
        return np.asarray(evaluator.run(None, feeds)[0])

    first = inputs[0] if inputs else None
    others = [plain_array(value) for value in inputs[1:]]
    if node.op_type == "DequantizeLinear" and (grid := _dequantized(node, inputs)) is not None:
        return grid
    if node.op_type == "Gather" and (looked_up := _looked_up(node, inputs, limit)) is not None:
        return looked_up
    if isinstance(first, TableTensor) and node.op_type in _SHAPE_OPERATORS:
        return _moved(first, lambda array: run(array, *others))
    if node.op_type == "Cast" and isinstance(first, TableTensor) and first.products == "float16":
        if _attribute(node, "to", 0) == _FLOAT:
            return first
    elif node.op_type == "Cast" and isinstance(first, TableTensor) and first.scale is None:
        return TableTensor(run(first.table), first.index, first.width)
    if node.op_type == "Mul" and (scaled := _scaled(inputs)) is not None:
        return scaled
    arrays = [plain_array(value) for value in inputs]
    if node.op_type in _ARITHMETIC:
        _bound(
            node.output[0], np.broadcast_shapes(*(a.shape for a in arrays if a is not None)), limit
        )
    if node.op_type == "Expand" and arrays[0] is not None and arrays[1] is not None:
        sizes = tuple(int(size) for size in arrays[1])
        _bound(node.output[0], np.broadcast_shapes(arrays[0].shape, sizes), limit)
    return run(*arrays)


def plain_array(value: Constant | None) -> Array | None:
    """The values of a constant."""
    return value.values() if isinstance(value, TableTensor) else value


def _moved(tensor: TableTensor, move: Callable[[Array], Array]) -> TableTensor:
    scales = None if tensor.scale_index is None else move(tensor.scale_index)
    return replace(tensor, index=move(tensor.index), scale_index=scales)


def _attribute(node: Any, name: str, default: int) -> int:
    return next((int(entry.i) for entry in node.attribute if entry.name == name), default)


def _looked_up(node: Any, inputs: list[Constant | None], limit: int) -> Constant | None:
    """Rows of a codebook; None for a Gather of something else."""
    table, codes = plain_array(inputs[0]), plain_array(inputs[1])
    assert table is not None
    assert codes is not None
    if table.dtype.kind != "f" or table.ndim not in (1, 2) or _attribute(node, "axis", 0) != 0:
        _bound(node.output[0], (codes.size, *table.shape[1:]), limit)
        return None
    width = 1 if table.ndim == 1 else table.shape[1]
    _bound(node.output[0], (codes.size, width), limit)
    low, high = (int(codes.min()), int(codes.max())) if codes.size else (0, 0)
    if low < 0 or high >= len(table):
        raise VqzooError(
            f"{node.output[0]}: codes {low}..{high} for a codebook of {len(table)} entries"
        )
    index: Array = codes.astype(np.int32)
    if table.ndim == 2:
        index = index[..., None] * width + np.arange(width, dtype=np.int32)
    return TableTensor(table.reshape(-1), index, width)


def _dequantized(node: Any, inputs: list[Constant | None]) -> Constant | None:
    """What a DequantizeLinear computes as a table; None where that is not possible."""
    codes, scale = plain_array(inputs[0]), plain_array(inputs[1])
    zero = plain_array(inputs[2]) if len(inputs) > 2 else None
    assert codes is not None
    assert scale is not None
    axis, block = _attribute(node, "axis", 1), _attribute(node, "block_size", 0)
    return integers_times(codes, scale, zero, axis, block)


def _scaled(inputs: list[Constant | None]) -> TableTensor | None:
    """A table's entries, or small integers, times float32 scales of a shape that is broadcast to
    theirs."""
    for factor, scale in (inputs, inputs[::-1]):
        tensor = factor if isinstance(factor, TableTensor) else _integers(factor)
        if tensor is None or isinstance(scale, TableTensor) or scale is None:
            continue
        if (
            tensor.scale is not None
            or scale.dtype != np.float32
            or tensor.table.dtype != np.float32
        ):
            continue
        if np.broadcast_shapes(tensor.shape, scale.shape) == tensor.shape:
            return tensor.times(scale)
    return None


def _integers(values: Array | None) -> TableTensor | None:
    """Small integers in a float32 matrix as entries of a table; None for other values."""
    if values is None or values.dtype != np.float32 or values.ndim < 2 or not values.size:
        return None
    low, high = float(values.min()), float(values.max())
    if not -MOST_LEVELS < low <= high < MOST_LEVELS or (values != np.round(values)).any():
        return None
    table = np.arange(low, high + 1, dtype=np.float32)
    return TableTensor(table, (values - low).astype(np.int32))

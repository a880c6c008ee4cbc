"""The constants of an ONNX graph, those that operators compute from initializers included."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqzoo.errors import VqzooError
from vqzoo_importers.coded.integers import integers_times
from vqzoo_importers.graph_network import Constant
from vqzoo_importers.onnx_codes import MOVES, coded, plain_array

Array = NDArray[Any]

# What they return is at most as large as all that they are given, broadcasting apart.
_ARITHMETIC = {
    "Add", "Sub", "Mul", "Div", "Mod", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Equal",
    "Max",
}  # fmt: skip
_NO_LARGER = {
    "Cast",
    "Concat",
    "Constant",
    "CumSum",
    "DequantizeLinear",
    "Not",
    "ReduceSum",
    "Shape",
}
_BOUNDED = {"ConstantOfShape", "Expand", "Gather", "GatherND", "MatMul", "NonZero", "Range"}
_KNOWN = MOVES | _ARITHMETIC | _NO_LARGER | _BOUNDED | {"ScatterElements"}


@dataclass(frozen=True)
class Constants:
    """The constants of a graph.

    Attributes:
        values: tensor name -> array, or entries of a table.
        roots: tensor name -> names of the initializers that it was computed from.
        unknown: tensor name -> the operator, none of those known here, that would compute it from
            constants, or what it is computed from.
        plain: names of floats that the file holds as they are, cast or moved at most.
    """

    values: Mapping[str, Constant]
    roots: Mapping[str, frozenset[str]]
    unknown: Mapping[str, str]
    plain: frozenset[str]

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
    plain = set()
    for tensor in model.graph.initializer:
        _bound(tensor.name, tuple(tensor.dims), limit)
        values[tensor.name] = array = numpy_helper.to_array(tensor)
        if array.dtype.kind == "f":
            plain.add(tensor.name)
    roots = {name: frozenset([name]) for name in values}
    unknown: dict[str, str] = {}
    opsets: dict[str, int] = {entry.domain: entry.version for entry in model.opset_import}
    for node in model.graph.node:
        names = [name for name in node.input if name]
        computed = all(name in roots for name in names) and (names or node.op_type == "Constant")
        if not computed:
            continue
        roots |= dict.fromkeys(node.output, frozenset().union(*(roots[name] for name in names)))
        if (node.domain, node.op_type) == ("com.microsoft", "DequantizeLinear"):
            node = _standard(node)
        reason = next((unknown[name] for name in names if name in unknown), node.op_type)
        if reason != node.op_type or not _is_known(node):
            unknown |= dict.fromkeys(node.output, reason)
            continue
        output = node.output[0]
        if node.op_type in MOVES | {"Cast"} and names[0] in plain:
            plain.add(output)
        inputs = [values[name] if name else None for name in node.input]
        try:
            values[output] = _evaluate(node, inputs, opsets, limit)
        except VqzooError:
            raise
        except Exception as error:  # of a hostile graph: anything
            text = " ".join(str(error).split())[:200]
            raise VqzooError(f"{node.op_type} cannot compute {output}: {text}") from None
    return Constants(values, roots, unknown, frozenset(plain))


def _is_known(node: Any) -> bool:
    return node.op_type in _KNOWN and node.domain in ("", "ai.onnx") and len(node.output) == 1


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

    codes = coded(node, inputs, run, lambda name, shape: _bound(name, shape, limit))
    if codes is not None:
        return codes
    arrays = [plain_array(value) for value in inputs]
    _bound(node.output[0], _shape(node, [array for array in arrays if array is not None]), limit)
    return run(*arrays)


def _shape(node: Any, arrays: list[Array]) -> tuple[int, ...]:
    """A shape at least as large as that of what a node computes, where that may be larger than
    what it is given."""
    if node.op_type in _ARITHMETIC:
        return np.broadcast_shapes(*(array.shape for array in arrays))
    if node.op_type == "Expand":
        return np.broadcast_shapes(arrays[0].shape, tuple(int(size) for size in arrays[1]))
    if node.op_type == "MatMul" and min(array.ndim for array in arrays) > 1:
        left, right = (array.shape for array in arrays)
        return (*np.broadcast_shapes(left[:-2], right[:-2]), left[-2], right[-1])
    if node.op_type == "ConstantOfShape":
        return tuple(int(size) for size in arrays[0])
    if node.op_type == "NonZero":
        return (arrays[0].ndim, arrays[0].size)
    if node.op_type == "Range":
        start, stop, step = (float(array.reshape(-1)[0]) for array in arrays)
        return (max(0, math.ceil((stop - start) / step)),)
    return ()

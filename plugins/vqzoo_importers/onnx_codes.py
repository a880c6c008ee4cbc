"""Operators of ONNX whose results are codes of weights: entries of tables, sums of them, products
of factors, and values between zeros."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqzoo.errors import VqzooError
from vqzoo_importers.coded.factors import FactoredTensor
from vqzoo_importers.coded.integers import MOST_LEVELS, integers_times
from vqzoo_importers.coded.residuals import ResidualTensor
from vqzoo_importers.coded.sparse import SparseTensor
from vqzoo_importers.coded.tables import TableTensor
from vqzoo_importers.graph_network import Coded, Constant

Array = NDArray[Any]
_FLOAT = 1  # of TensorProto
MOVES = {
    "Identity", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice",
}  # fmt: skip
"""Operators whose results are at most as large as what they move."""


def coded(
    node: Any, inputs: list[Constant | None], run: Callable[..., Array], bound: Callable[..., None]
) -> Constant | None:
    """What a node computes, as codes; None if it is none of them.

    Args:
        node: an onnx.NodeProto.
        inputs: its inputs, None where one is left out.
        run: evaluates the node for arrays.
        bound: refuses a shape that is far too large.

    Raises:
        VqzooError: codes are none of their codebook.
    """
    first, others = inputs[0] if inputs else None, [plain_array(value) for value in inputs[1:]]
    match node.op_type:
        case "DequantizeLinear":
            return _dequantized(node, plain_array(first), others)
        case "Gather":
            return _looked_up(node, plain_array(first), others[0], bound)
        case "GatherND":
            return _looked_up_each(node, plain_array(first), others[0], bound)
        case "Cast" if isinstance(first, TableTensor):
            return _cast(node, first, run)
        case "Mul":
            return _scaled(inputs)
        case "Concat":
            return _joined(node, inputs)
        case "ReduceSum" if isinstance(first, TableTensor) and first.scale is None:
            return _summed(node, first, others)
        case "MatMul":
            return _product(node, plain_array(first), others[0], bound)
        case "ScatterElements":
            return _scattered(node, plain_array(first), others[0], inputs[2])
        case name if name in MOVES and isinstance(first, TableTensor | ResidualTensor):
            return first.moved(lambda array: run(array, *others))
        case "Reshape" if isinstance(first, FactoredTensor | SparseTensor):
            shape = run(np.broadcast_to(np.int8(0), first.shape), *others).shape
            same = isinstance(first, SparseTensor) or shape[:1] == first.shape[:1]
            return first.reshape(shape) if same else None
        case _:
            return None


def plain_array(value: Constant | None) -> Array | None:
    """The values of a constant."""
    return value.values() if isinstance(value, Coded) else value


def attribute(node: Any, name: str, default: int) -> int:
    """An integer attribute of a node."""
    return next((int(entry.i) for entry in node.attribute if entry.name == name), default)


def _dequantized(node: Any, codes: Array | None, others: list[Array | None]) -> Constant | None:
    """What a DequantizeLinear computes as a table; None where that is not possible."""
    scale, zero = (*others, None)[:2]
    assert codes is not None
    assert scale is not None
    axis, block = attribute(node, "axis", 1), attribute(node, "block_size", 0)
    return integers_times(codes, scale, zero, axis, block)


def _looked_up(
    node: Any, table: Array | None, codes: Array | None, bound: Callable[..., None]
) -> Constant | None:
    """Rows of a codebook; None for a Gather of something else."""
    assert table is not None
    assert codes is not None
    if table.dtype.kind != "f" or table.ndim not in (1, 2) or attribute(node, "axis", 0) != 0:
        bound(node.output[0], (codes.size, *table.shape[1:]))
        return None
    width = 1 if table.ndim == 1 else table.shape[1]
    bound(node.output[0], (codes.size, width))
    low, high = (int(codes.min()), int(codes.max())) if codes.size else (0, 0)
    if low < 0 or high >= len(table):
        raise VqzooError(
            f"{node.output[0]}: codes {low}..{high} for a codebook of {len(table)} entries"
        )
    index: Array = codes.astype(np.int32)
    if table.ndim == 2:
        index = index[..., None] * width + np.arange(width, dtype=np.int32)
    return TableTensor(table.reshape(-1), index, width)


def _looked_up_each(
    node: Any, table: Array | None, places: Array | None, bound: Callable[..., None]
) -> Constant | None:
    """`_looked_up` of a GatherND with one index for each result; None for another GatherND."""
    assert table is not None
    assert places is not None
    indices = places.shape[-1]
    if indices == 1:
        return _looked_up(node, table, places[..., 0], bound)
    bound(node.output[0], (*places.shape[:-1], *table.shape[indices:]))
    return None


def _cast(node: Any, tensor: TableTensor, run: Callable[..., Array]) -> TableTensor | None:
    if tensor.products == "float16":
        return tensor if attribute(node, "to", 0) == _FLOAT else None
    return replace(tensor, table=run(tensor.table)) if tensor.scale is None else None


def _scaled(inputs: list[Constant | None]) -> Constant | None:
    """Entries of tables, or small integers, times float32 scales of a shape that is broadcast to
    theirs."""
    for factor, scale in (inputs, inputs[::-1]):
        tensor = factor if isinstance(factor, TableTensor | ResidualTensor) else _integers(factor)
        if tensor is None or isinstance(scale, Coded) or scale is None:
            continue
        table = tensor.stages.table if isinstance(tensor, ResidualTensor) else tensor.table
        if tensor.scale is not None or not scale.dtype == table.dtype == np.float32:
            continue
        if np.broadcast_shapes(tensor.shape, scale.shape) == tensor.shape:
            return tensor.times(scale)
    return None


def _integers(values: Constant | None) -> TableTensor | None:
    """Small integers in a float32 matrix as entries of a table; None for other values."""
    if not isinstance(values, np.ndarray) or values.dtype != np.float32:
        return None
    if values.ndim < 2 or not values.size:
        return None
    low, high = float(values.min()), float(values.max())
    if not -MOST_LEVELS < low <= high < MOST_LEVELS or (values != np.round(values)).any():
        return None
    table = np.arange(low, high + 1, dtype=np.float32)
    return TableTensor(table, (values - low).astype(np.int32))


def _joined(node: Any, inputs: list[Constant | None]) -> Constant | None:
    """Vectors of two lengths, the second of which are those of a shorter last block."""
    axis = attribute(node, "axis", 0)
    match inputs:
        case [TableTensor() as whole, TableTensor() as tail]:
            return _with_tail(whole, tail, axis)
        case [ResidualTensor() as whole, ResidualTensor() as tail]:
            if whole.scale is None and tail.scale is None:
                behind = axis + 1 if axis >= 0 else axis
                stages = _with_tail(whole.stages, tail.stages, behind)
                return None if stages is None else ResidualTensor(stages)
    return None


def _with_tail(whole: TableTensor, tail: TableTensor, axis: int) -> TableTensor | None:
    parts = (whole, tail)
    if any(part.scale is not None or part.tail is not None for part in parts):
        return None
    if whole.table.dtype != tail.table.dtype:
        return None
    start = len(whole.table)
    index = np.concatenate([whole.index, tail.index + start], axis=axis)
    table = np.concatenate([whole.table, tail.table])
    return TableTensor(table, index, whole.width, tail=start)


def _summed(node: Any, tensor: TableTensor, axes: list[Array | None]) -> Constant | None:
    """Entries that are added up along one axis."""
    if attribute(node, "keepdims", 1) or len(axes) != 1 or axes[0] is None or axes[0].size != 1:
        return None
    axis = int(axes[0].reshape(-1)[0])
    if tensor.index.shape[axis] == 1:
        return replace(tensor, index=np.squeeze(tensor.index, axis))
    return ResidualTensor(replace(tensor, index=np.moveaxis(tensor.index, axis, 0)))


def _product(
    node: Any, left: Array | None, right: Array | None, bound: Callable[..., None]
) -> FactoredTensor | None:
    """A product of two matrices of floats; None for another product."""
    assert left is not None
    assert right is not None
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != len(right) or left.dtype.kind != "f":
        return None
    bound(node.output[0], (len(left), right.shape[1]))
    return FactoredTensor(left, right)


def _scattered(
    node: Any, zeros: Array | None, places: Array | None, values: Constant | None
) -> SparseTensor | None:
    """Values at places among zeros; None for other data."""
    assert zeros is not None
    assert places is not None
    if zeros.ndim != 1 or zeros.dtype != np.float32 or zeros.any() or places.ndim != 1:
        return None
    if values is None or values.shape != places.shape or attribute(node, "axis", 0):
        return None
    if any(entry.name == "reduction" and entry.s not in (b"", b"none") for entry in node.attribute):
        return None
    if not places.size or places.min() < 0 or (np.diff(places) <= 0).any():
        return None
    dense, mask = zeros.copy(), np.zeros(zeros.shape, dtype=bool)
    dense[places], mask[places] = plain_array(values), True
    return SparseTensor(dense, mask, values if isinstance(values, TableTensor) else None)

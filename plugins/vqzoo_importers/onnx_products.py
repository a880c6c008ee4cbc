"""Layers of ONNX graphs that multiply by integers: what onnxruntime's quantizers write."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqzoo.errors import VqzooError
from vqzoo_importers.coded.integers import grid, integers_times
from vqzoo_importers.coded.tables import TableTensor, unpack_bits
from vqzoo_importers.graph_network import Constant, GraphLayer
from vqzoo_importers.onnx_codes import plain_array
from vqzoo_importers.onnx_constants import Constants

Array = NDArray[Any]
_NBITS = "MatMulNBits"
_SIXTEEN = 16  # high bits stand for as many times the low bits
_BLOCKS = range(16, 1 << 16)  # sizes that the operator takes, of which powers of two


@dataclass(frozen=True)
class _Operands:
    """Places among the inputs of an operator.

    Attributes:
        weight: integers.
        zero: their zero points, which may be missing.
        scale: None where the graph multiplies by it afterwards.
        bias: None if the operator has none.
        input_scale: of the input, where the bias is integers in units of both scales.
        rows_first: whether a row of the weight is an output, as in a convolution.
    """

    weight: int
    zero: int
    scale: int | None = None
    bias: int | None = None
    input_scale: int | None = None
    rows_first: bool = False


_OPERANDS = {
    "ConvInteger": _Operands(1, 3, rows_first=True),
    "MatMulInteger": _Operands(1, 3),
    "MatMulIntegerToFloat": _Operands(1, 5, 3, bias=6),
    "DynamicQuantizeMatMul": _Operands(1, 3, 2, bias=4),
    "QLinearConv": _Operands(3, 5, 4, bias=8, input_scale=1, rows_first=True),
    "QLinearMatMul": _Operands(3, 5, 4),
    "QGemm": _Operands(3, 5, 4, bias=6, input_scale=1),
}
INTEGER_PRODUCTS = {_NBITS, *_OPERANDS}


@dataclass(frozen=True)
class Surroundings:
    """What stands around the nodes of a graph.

    Attributes:
        constants: of the graph.
        users: tensor name -> the nodes that take it.
        makers: tensor name -> the node that computes it.
    """

    constants: Constants
    users: Mapping[str, list[Any]]
    makers: Mapping[str, Any]

    def added(self, output: str, count: int) -> Constant | None:
        """The constant of `count` values that is added to an activation: a bias."""
        for node in self.users.get(output, []):
            value = None
            if node.op_type == "Add" and len(node.input) == 2:
                value = self.constants.values.get(node.input[node.input[0] == output])
            elif node.op_type == "QLinearAdd":
                value = _term(node, self.constants)
            if value is not None and max(value.shape, default=1) == count == _size(value):
                return value.reshape((count,))
        return None


def surroundings(model: Any, constants: Constants) -> Surroundings:
    """Look up the neighbours of each node."""
    users: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    makers = {name: node for node in model.graph.node for name in node.output}
    return Surroundings(constants, users, makers)


def layer_of_integers(node: Any, graph: Surroundings) -> GraphLayer | None:
    """A layer of one of the `INTEGER_PRODUCTS`; None where two activations are multiplied.

    Raises:
        VqzooError: its operands are no weight that can be read.
    """
    place = 1 if node.op_type == _NBITS else _OPERANDS[node.op_type].weight
    name = node.input[place] if len(node.input) > place else ""
    if operator := graph.constants.unknown.get(name):
        roots = ", ".join(sorted(graph.constants.roots[name], key=len)[-1:])
        raise VqzooError(f"the integers {roots} are computed by {operator}, which is not imported")
    if name not in graph.constants.values:
        return None
    where, halves = f"{node.op_type} of {name}", _halves(node, graph)
    if halves and halves[1] is node:
        return None  # the first of them stands for both
    try:
        if halves:
            weight, bias = _sum(*halves, graph.constants), None
        elif node.op_type == _NBITS:
            weight, bias = _packed(node, graph.constants)
        else:
            weight, bias = _product(node, graph)
    except VqzooError as error:
        raise VqzooError(f"{where}: {error}") from None
    except (ValueError, IndexError, TypeError, OverflowError) as error:
        text = " ".join(str(error).split())[:200]
        raise VqzooError(f"{where} has operands that do not fit: {text}") from None
    if bias is None:
        output = _scaled_by(node, graph)[1] if _is_scaled_later(node) else node.output[0]
        output = graph.users[output][0].output[0] if halves else output
        bias = graph.added(output, weight.shape[0])
    return GraphLayer(name, layer_names(node, name, graph.constants), weight, bias)


def layer_names(node: Any, weight: str, constants: Constants) -> frozenset[str]:
    """Names that may tell which layer a node is: those of its weight, and its own.

    torch's exporter calls a node "/layer1/layer1.0/conv1/Conv", and optimizers may add to the end
    and change the order of nodes: the path of the module is what all parts but the last one say.
    """
    path: list[str] = []
    for part in node.name.split("/")[1:-1]:
        if path and part.startswith(f"{path[-1]}."):
            path.pop()
        path.append(part)
    return frozenset({weight, f"{'.'.join(path)}.weight"}) | constants.roots[weight]


def _packed(node: Any, constants: Constants) -> tuple[TableTensor, Constant | None]:
    """The weight (N, K) of a MatMulNBits, blocks of whose rows have a scale and a zero point."""
    options = {entry.name: int(entry.i) for entry in node.attribute}
    rows, columns = options.get("N", 0), options.get("K", 0)
    bits, block = options.get("bits", 4), options.get("block_size", 0)
    operands = [_operand(node, place, constants) for place in range(6)]
    _, packed, scale, zero, order, bias = operands
    if bits not in (2, 4, 8) or block not in _BLOCKS or block & (block - 1):
        raise VqzooError(f"{bits} bits in blocks of {block} are not imported")
    if order is not None or options.get("weight_prepacked"):
        raise VqzooError("columns in another order are not imported")
    blocks = -(-columns // block)
    if (
        packed is None
        or scale is None
        or packed.dtype != np.uint8
        or scale.dtype not in (np.float32, np.float16)
        or rows < 1
        or columns < 1
        or packed.size * 8 != rows * blocks * block * bits
        or scale.size != rows * blocks
    ):
        raise VqzooError(f"its integers and scales are not those of {rows} × {columns} weights")
    codes = unpack_bits(packed.reshape(-1), bits, rows * blocks * block)
    codes = codes.reshape(rows, blocks * block)[:, :columns].astype(np.int32)
    scale = scale.astype(np.float32).reshape(rows, blocks)
    block_of = np.arange(columns) // block
    if zero is not None and zero.dtype != np.uint8:
        if bits > 4:
            raise VqzooError(f"zero points that are no integers, of {bits} bits, are not imported")
        zeros = zero.astype(np.float32).reshape(rows, blocks)
        return _shifted(codes, scale, zeros, block_of, 1 << bits), bias
    if zero is None:
        zeros = np.full((rows, blocks), 1 << (bits - 1), dtype=np.uint8)
    else:
        lines = zero.reshape(rows, -(-blocks * bits // 8))
        zeros = unpack_bits(lines.reshape(-1), bits, lines.size * 8 // bits)
        zeros = zeros.reshape(rows, -1)[:, :blocks]
    weight = integers_times(codes, scale, zeros, 1, block)
    assert weight is not None  # its integers are few
    return weight, bias


def _halves(node: Any, graph: Surroundings) -> tuple[Any, Any] | None:
    """The two MatMulNBits of one input that are added up, in the order of the sum; None if the node
    is none of two. `vqzoo export --weights packed` writes integers of more than 4 bits so."""
    users = graph.users.get(node.output[0], [])
    if node.op_type != _NBITS or [user.op_type for user in users] != ["Add"]:
        return None
    pair = [graph.makers[name] for name in users[0].input if name in graph.makers]
    if len(pair) != 2 or pair[0] is pair[1]:
        return None
    first, second = pair
    same = first.op_type == second.op_type == _NBITS and first.input[0] == second.input[0]
    return (first, second) if same else None


def _sum(high: Any, low: Any, constants: Constants) -> TableTensor:
    """The weight of two products, of the high and the low bits of its integers.

    Raises:
        VqzooError: the scales of the high bits are not 16 times those of the low bits.
    """
    (first, _), (second, _) = (_packed(node, constants) for node in (high, low))
    scales = [part.scale[part.scale_index] for part in (first, second) if part.scale is not None]
    if len(scales) != 2 or first.shape != second.shape:
        raise VqzooError("it is added to another product, which is not imported")
    if (scales[0] != _SIXTEEN * scales[1]).any():
        raise VqzooError("it is added to a product with other scales, which is not imported")
    integers = _SIXTEEN * first.table[first.index] + second.table[second.index]
    assert second.scale is not None
    assert second.scale_index is not None
    weight = grid(integers.astype(np.int64), second.scale, second.scale_index)
    assert weight is not None  # its integers are few
    return weight


def _shifted(codes: Array, scale: Array, zero: Array, block_of: Array, levels: int) -> TableTensor:
    """Integers times a scale, less scale · zero, in float32, as onnxruntime rounds them."""
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.arange(levels, dtype=np.float32) * scale[..., None]
        table = steps + (-scale * zero)[..., None]
    first = np.arange(scale.size).reshape(scale.shape)[:, block_of] * levels
    return TableTensor(table.reshape(-1), (first + codes).astype(np.int32))


def _product(node: Any, graph: Surroundings) -> tuple[TableTensor, Constant | None]:
    """The weight, in torch's layout, and the bias of an operator that multiplies by integers."""
    at = _OPERANDS[node.op_type]
    options = {entry.name: entry for entry in node.attribute}
    codes, zero = (_operand(node, place, graph.constants) for place in (at.weight, at.zero))
    scale = (
        _scaled_by(node, graph)[0]
        if at.scale is None
        else _operand(node, at.scale, graph.constants)
    )
    if codes is None or scale is None:
        raise VqzooError("the scale of its integers is not constant")
    turned = "transB" in options and options["transB"].i
    if ("alpha" in options and options["alpha"].f != 1) or (
        "transA" in options and options["transA"].i
    ):
        raise VqzooError("it is not the product of a Linear")
    if not at.rows_first and codes.ndim != 2:
        raise VqzooError(f"integers of the shape {codes.shape} are no matrix")
    rows_first = at.rows_first or turned
    zeros = None if zero is None else zero.reshape(-1)
    weight = integers_times(codes, scale.reshape(-1), zeros, 0 if rows_first else 1, 0)
    if weight is None:
        raise VqzooError(f"{codes.dtype} times {scale.dtype} is not imported")
    weight = weight if rows_first else weight.transpose((1, 0))
    bias = None if at.bias is None else _operand(node, at.bias, graph.constants)
    if bias is not None and at.input_scale is not None:
        unit = _operand(node, at.input_scale, graph.constants)
        if unit is None:
            raise VqzooError("the scale of its bias is not constant")
        bias = bias.astype(np.float32) * (unit.reshape(-1) * scale.reshape(-1))
    return weight, bias


def _operand(node: Any, place: int, constants: Constants) -> Array | None:
    """An input that is constant; None where the node has none.

    Raises:
        VqzooError: it is an activation, which no operand behind the first is.
    """
    name = node.input[place] if place < len(node.input) else ""
    value = constants.values.get(name)
    if name and place and value is None:
        raise VqzooError(f"{name} is not constant")
    return plain_array(value)


def _term(node: Any, constants: Constants) -> Constant | None:
    """What a QLinearAdd adds to an activation."""
    for codes, scale, zero in (node.input[0:3], node.input[3:6]):
        value = constants.dequantized(codes, scale, zero)
        if value is not None:
            return value
    return None


def _is_scaled_later(node: Any) -> bool:
    return node.op_type in _OPERANDS and _OPERANDS[node.op_type].scale is None


def _scaled_by(node: Any, graph: Surroundings) -> tuple[Array, str]:
    """The scale of a weight whose product is cast to floats and multiplied by that and the scale
    of the input; and the name of what this computes.

    Raises:
        VqzooError: the graph does something else with the product.
    """
    for cast in graph.users.get(node.output[0], []):
        for product in graph.users.get(cast.output[0], []) if cast.op_type == "Cast" else ():
            if product.op_type != "Mul":
                continue
            other = product.input[product.input[0] == cast.output[0]]
            maker = graph.makers.get(other)
            names = maker.input if maker is not None and maker.op_type == "Mul" else [other]
            for name in names:
                value = graph.constants.values.get(name)
                if value is not None:
                    scale = plain_array(value)
                    assert scale is not None
                    return scale, product.output[0]
    raise VqzooError("its product is not multiplied by a constant scale")


def _size(value: Constant) -> int:
    return int(np.prod(value.shape, dtype=np.int64))

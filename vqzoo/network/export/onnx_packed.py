"""Linear layers that onnxruntime multiplies by packed integers: com.microsoft.MatMulNBits.

The operator keeps blocks of 4-bit integers, with a scale for each, and never the weight. Integers
of more bits are two of 4, hence two products. onnxruntime alone has it.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from vqzoo.errors import VqzooError
from vqzoo.network.export.packed_weight import PackedWeight, plane_buffer
from vqzoo.plugin import Code, Indices, LookUp

Inputs = Literal["float32", "int8"]
OPERATOR = "MatMulNBits"
DOMAIN = "com.microsoft"
_BITS = 4
_SIXTEEN = 1 << _BITS
_BLOCKS = (256, 128, 64, 32)  # columns with one scale; fewer make products slower
_SMALLEST = 16  # that the operator takes
_ACCURACY: dict[Inputs, int] = {"float32": 1, "int8": 4}  # accuracy_level


class NothingToPack(VqzooError):
    """No layer has integers that the operator takes."""


@dataclass(frozen=True)
class _Grid:
    """A matrix of integers times scales.

    Attributes:
        zero: the code of 0.
        bits: of a code, at most 8.
        group: columns that share a scale.
        block: columns of a block of the operator, a power of two.
        plane: the buffer of `PackedWeight` whose bytes are the operator's, so that nothing has to
            be unpacked when the file is loaded; None if there is none.
    """

    zero: int
    bits: int
    group: int
    block: int
    plane: str | None


def multiply_packed(model: nn.Module, inputs: Inputs) -> set[nn.Module]:
    """Let Linear layers whose weights are integers times scales multiply by packed codes, in place.

    A network that reads such a layer's weight itself decodes it, as before.

    Args:
        model: the network, its weights decoded by `PackedWeight`.
        inputs: "float32" multiplies as the artifact does; "int8" rounds the inputs of these layers
            to 8 bits, with a scale for each block.

    Returns:
        Empty; gathers the layers that have multiplied so, once the network has run.

    Raises:
        NothingToPack: there is none.
        VqzooError: torch is too old.
    """
    packable, multiplied = False, set[nn.Module]()
    for module in model.modules():
        if not isinstance(module, nn.Linear) or not is_parametrized(module, "weight"):
            continue
        chain: Any = module.parametrizations
        packed = chain["weight"][0]
        if type_before_parametrizations(module) != nn.Linear or not isinstance(
            packed, PackedWeight
        ):
            continue
        grid = _grid(packed)
        if grid is not None:
            if not hasattr(torch.onnx, "ops"):
                raise VqzooError(f"packed weights need torch 2.8 or later, not {torch.__version__}")
            module.forward = partial(  # type: ignore[method-assign]
                _answer, module, packed, grid, inputs, multiplied
            )
            packable = True
    if not packable:
        raise NothingToPack(
            "no Linear layer has integers times scales, as rtn's are: omit --weights packed"
        )
    return multiplied


def _grid(packed: PackedWeight) -> _Grid | None:
    """The grid of a weight; None if its values are none, or groups have no such blocks."""
    compressed = packed.code()
    form, (m, n) = packed.form(compressed), compressed.code.shape
    if not isinstance(form, LookUp) or form.scale is None or form.codes.shape != (m, n):
        return None
    books, entries, d = form.table.shape
    bits = max(1, (entries - 1).bit_length())
    zero, block = _zero(form.table.reshape(-1)), _block(n, form.group)
    if (books, d) != (1, 1) or bits > 2 * _BITS or zero is None or block is None:
        return None
    plane = _plane(compressed.code, form) if bits == _BITS and n % block == 0 else None
    return _Grid(zero, bits, min(form.group, n), block, plane)


def _plane(code: Code, form: LookUp) -> str | None:
    """The buffer with a form's codes of 4 bits, if they are those of a part."""
    for name, part in code.parts.items():
        if (
            isinstance(part, Indices)
            and part.bits == _BITS
            and torch.equal(part.values, form.codes)
        ):
            return plane_buffer(name, 0)
    return None


def _zero(table: Tensor) -> int | None:
    """The code of 0 in a table of consecutive integers; None for another table."""
    first = -int(table[0])
    consecutive = torch.arange(len(table), dtype=table.dtype) - first
    return first if 0 <= first < len(table) and torch.equal(table, consecutive) else None


def _block(columns: int, group: int) -> int | None:
    """The size of blocks, each in one group of columns; None if there is none."""
    if group < columns:
        size = math.gcd(group, _BLOCKS[0])
        return size if size >= _SMALLEST else None
    return next((size for size in _BLOCKS if columns % size == 0), _BLOCKS[-1])


def _answer(
    layer: nn.Linear,
    packed: PackedWeight,
    grid: _Grid,
    inputs: Inputs,
    multiplied: set[nn.Module],
    x: Tensor,
) -> Tensor:
    """The layer's answer (..., m) to inputs (..., n), in ONNX operators."""
    multiplied.add(layer)
    form = packed.form(packed.code())
    assert isinstance(form, LookUp)
    assert form.scale is not None
    scale, accuracy = form.scale, _ACCURACY[inputs]
    shape = (form.codes.shape[0], form.codes.shape[1])
    if grid.plane is not None:
        bytes_of = packed.get_buffer(grid.plane)
        answer = _product(x, bytes_of, shape, grid.zero, scale, grid, accuracy)
    elif grid.bits <= _BITS:
        answer = _product(x, _nibbles(form.codes, grid), shape, grid.zero, scale, grid, accuracy)
    else:  # integers are 16 · (high - high zero) + (low - low zero)
        high = _nibbles(_shift(form.codes, "RIGHT"), grid)
        low = _nibbles(_bitwise("BitwiseAnd", form.codes, _SIXTEEN - 1), grid)
        high_zero, low_zero = divmod(grid.zero, _SIXTEEN)
        answer = _product(x, high, shape, high_zero, scale * _SIXTEEN, grid, accuracy)
        answer = answer + _product(x, low, shape, low_zero, scale, grid, accuracy)
    return answer if layer.bias is None else answer + layer.bias


def _nibbles(codes: Tensor, grid: _Grid) -> Tensor:
    """Codes below 16, uint8 (m, n), two a byte, the first in the low bits; rows are padded."""
    columns = codes.shape[1]
    padded = F.pad(codes, (0, -columns % grid.block)) if columns % grid.block else codes
    pairs = padded.view(len(codes), -1, 2)
    return _bitwise("BitwiseOr", pairs[..., 0], _shift(pairs[..., 1], "LEFT"))


def _product(
    x: Tensor,
    nibbles: Tensor,
    shape: tuple[int, int],
    zero: int,
    scale: Tensor,
    grid: _Grid,
    accuracy: int,
) -> Tensor:
    """The product of inputs (..., n) and (codes - zero) · scale, by the bytes of codes (m, n)."""
    m, n = shape
    blocks = -(-n // grid.block)
    if scale.shape[1] > 1:
        scale = scale.repeat_interleave(grid.group // grid.block, 1)[:, :blocks]
    zeros = torch.tensor([[zero * (_SIXTEEN + 1)]], dtype=torch.uint8)
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{OPERATOR}",
        (
            x,
            nibbles.view(m, blocks, grid.block // 2),
            scale.expand(m, blocks),
            zeros.expand(m, -(-blocks // 2)),
        ),
        {"K": n, "N": m, "bits": _BITS, "block_size": grid.block, "accuracy_level": accuracy},
        dtype=x.dtype,
        shape=(*x.shape[:-1], m),
        version=1,
    )


def _shift(values: Tensor, direction: Literal["LEFT", "RIGHT"]) -> Tensor:
    """uint8 shifted by 4 bits; torch's own shifts become signed ones in ONNX."""
    four = torch.tensor(_BITS, dtype=torch.uint8)
    return torch.onnx.ops.symbolic(
        "BitShift", (values, four), {"direction": direction}, dtype=torch.uint8, shape=values.shape
    )


def _bitwise(operator: str, values: Tensor, other: Tensor | int) -> Tensor:
    operand = torch.tensor(other, dtype=torch.uint8) if isinstance(other, int) else other
    return torch.onnx.ops.symbolic(
        operator, (values, operand), dtype=torch.uint8, shape=values.shape
    )

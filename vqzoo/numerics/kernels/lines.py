"""Cache lines of 16 floats for numba kernels: assembled in registers, written past the caches.

A decoder writes each value once and reads none of them back. A streaming store does not read the
line from memory first, which saves half of the traffic.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from vqzoo.numerics.kernels.codegen import address, load_vector

LINE = 16  # floats
_LINE = ir.VectorType(ir.FloatType(), LINE)
_QUAD = ir.VectorType(ir.FloatType(), 4)
_BYTES = 64


class _Line(types.Type):
    def __init__(self) -> None:
        super().__init__(name="line")


line = _Line()


@register_model(_Line)
class _LineModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, _LINE)


def _joined(builder: Any, low: Any, high: Any, width: int) -> Any:
    """Two vectors of `width` floats joined into one."""
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), 2 * width), list(range(2 * width)))
    return builder.shuffle_vector(low, high, lanes)


@intrinsic
def gather_line(typing_context: Any, source: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """A line of four floats from each of four positions of a contiguous float32 array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        quads = []
        for index in args[1:]:
            place = address(context, builder, signature.args[0], args[0], index, _QUAD)
            quads.append(builder.load(place))
            quads[-1].align = 4
        low = _joined(builder, quads[0], quads[1], 4)
        high = _joined(builder, quads[2], quads[3], 4)
        return _joined(builder, low, high, 8)

    return line(source, types.intp, types.intp, types.intp, types.intp), generate


@intrinsic
def load_line(typing_context: Any, source: Any, at: Any) -> Any:
    """The line at position `at` of a contiguous float32 array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return load_vector(context, builder, signature, args, _LINE)

    return line(source, types.intp), generate


@intrinsic
def load_line_or_zeros(typing_context: Any, source: Any, at: Any, exists: Any) -> Any:
    """`load_line` of a line that exists, or zeros: the array's first line is read in its place."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.select(args[2], args[1], ir.Constant(args[1].type, 0))
        found = load_vector(context, builder, signature, (args[0], place), _LINE)
        return builder.select(args[2], found, ir.Constant(_LINE, [0.0] * LINE))

    return line(source, types.intp, types.boolean), generate


@intrinsic
def code_at(typing_context: Any, codes: Any, at: Any) -> Any:
    """codes[at] of a contiguous uint8, uint16 or int32 array, with at >= 0 and codes >= 0.

    numba's own indexing checks for negative indices, which costs as much as the rest.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.IntType(signature.args[0].dtype.bitwidth)
        place = address(context, builder, signature.args[0], args[0], args[1], kind)
        return builder.zext(builder.load(place), ir.IntType(64))

    return types.int64(codes, types.intp), generate


@intrinsic
def add_lines(typing_context: Any, a: Any, b: Any) -> Any:
    """a + b, of lines or of vectors of any other width."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(args[0], args[1])

    return a(a, a), generate


@intrinsic
def stream_line(typing_context: Any, a: Any, target: Any, to: Any) -> Any:
    """Write a line to position `to` of a float32 array, aligned to 64 bytes; call `fence` after."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = address(context, builder, signature.args[1], args[1], args[2], _LINE)
        written = builder.store(args[0], place)
        written.align = _BYTES
        one = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        written.set_metadata("nontemporal", one)
        return context.get_dummy_value()

    return types.void(line, target, types.intp), generate


@intrinsic
def store_line(typing_context: Any, a: Any, target: Any, to: Any) -> Any:
    """Write a line to position `to` of a float32 array, at any alignment."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = address(context, builder, signature.args[1], args[1], args[2], _LINE)
        builder.store(args[0], place).align = 4
        return context.get_dummy_value()

    return types.void(line, target, types.intp), generate


@intrinsic
def fence(typing_context: Any) -> Any:
    """Make streamed lines visible to other threads before any later write."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate

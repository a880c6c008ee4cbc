"""Products of four floats with many others that lie side by side, four by four."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from vqzoo.numerics.kernels.codegen import address
from vqzoo.numerics.kernels.lines import LINE, line

QUAD = 4
_FLOATS = ir.VectorType(ir.FloatType(), LINE)


@intrinsic
def spread_quad(typing_context: Any, source: Any, at: Any) -> Any:
    """The four floats at position `at` of a contiguous float32 array, four times in a row."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(ir.FloatType(), QUAD)
        quad = builder.load(address(context, builder, signature.args[0], args[0], args[1], kind))
        quad.align = 4
        return _shuffled(builder, quad, quad, [lane % QUAD for lane in range(LINE)])

    return line(source, types.intp), generate


@intrinsic
def multiply_quads(typing_context: Any, source: Any, at: Any, quad: Any) -> Any:
    """The products of a quad from `spread_quad` with each of 16 quads, which a contiguous float32
    array holds from position `at` on.

    Each is (a + b) + (c + d), a to d being products of two floats.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        products = []
        for part in range(QUAD):
            place = builder.add(args[1], ir.Constant(args[1].type, part * LINE))
            source = address(context, builder, signature.args[0], args[0], place, _FLOATS)
            quads = builder.load(source)
            quads.align = 4
            products.append(builder.fmul(quads, args[2]))
        low = _pairs_added(builder, products[0], products[1])
        sums = _pairs_added(builder, low, _pairs_added(builder, products[2], products[3]))
        order = [QUAD * (entry % QUAD) + entry // QUAD for entry in range(LINE)]
        return _shuffled(builder, sums, sums, order)

    return line(source, types.intp, line), generate


def _pairs_added(builder: Any, a: Any, b: Any) -> Any:
    """The sums of neighbours, for each quarter those of a before those of b: no float leaves its
    quarter, which costs least."""
    even = [
        QUAD * quarter + offset + place
        for quarter in range(LINE // QUAD)
        for offset in (0, LINE)
        for place in (0, 2)
    ]
    odd = [place + 1 for place in even]
    return builder.fadd(_shuffled(builder, a, b, even), _shuffled(builder, a, b, odd))


def _shuffled(builder: Any, a: Any, b: Any, order: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), LINE), order))

"""Integer vectors for numba kernels: scores that carry their code, and comparisons of them."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from vqzoo.numerics.kernels.codegen import load_vector
from vqzoo.numerics.kernels.vectors import INTS, LANES, floats, ints


@intrinsic
def load_ints(typing_context: Any, array: Any, index: Any) -> Any:
    """`LANES` integers of a contiguous int32 array, starting at flat position `index`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return load_vector(context, builder, signature, args, INTS)

    return ints(array, types.intp), generate


@intrinsic
def tagged(typing_context: Any, value: Any, mask: Any, tag: Any) -> Any:
    """The bits of `value` where `mask` has ones, those of `tag` elsewhere.

    Positive floats tagged this way compare, as integers, by value first and by tag second.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], INTS)
        return builder.or_(builder.and_(bits, args[1]), args[2])

    return ints(floats, ints, ints), generate


@intrinsic
def lesser(typing_context: Any, a: Any, b: Any) -> Any:
    """The smaller integer."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.icmp_signed("<", args[0], args[1]), args[0], args[1])

    return ints(ints, ints), generate


@intrinsic
def greater(typing_context: Any, a: Any, b: Any) -> Any:
    """The larger integer."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.icmp_signed(">", args[0], args[1]), args[0], args[1])

    return ints(ints, ints), generate


@intrinsic
def any_below(typing_context: Any, a: Any, b: Any) -> Any:
    """Whether a < b in any lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = builder.bitcast(builder.icmp_signed("<", *args), ir.IntType(LANES))
        return builder.icmp_unsigned("!=", lanes, ir.Constant(lanes.type, 0))

    return types.boolean(ints, ints), generate


@intrinsic
def above(typing_context: Any, a: Any, floor: Any) -> Any:
    """a where a > floor, else the largest integer."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        largest = ir.Constant(INTS, [2**31 - 1] * LANES)
        return builder.select(builder.icmp_signed(">", args[0], args[1]), args[0], largest)

    return ints(ints, ints), generate

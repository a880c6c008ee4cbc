"""Operations on vectors of floats of either width: those of `vectors`, or lines of 16.

Kernels that take a vector of the width they are to work with need only be written once.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from vqzoo.numerics.kernels.codegen import address, load_vector, spread


@intrinsic
def load_lanes(typing_context: Any, like: Any, array: Any, index: Any) -> Any:
    """The floats of a contiguous float32 array from flat position `index` on, as many as `like`
    has."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        inner = types.void(array, types.intp)
        return load_vector(context, builder, inner, args[1:], context.get_value_type(like))

    return like(like, array, types.intp), generate


@intrinsic
def spread_lanes(typing_context: Any, like: Any, array: Any, index: Any) -> Any:
    """array[index] of a contiguous float32 array in every lane of a vector like `like`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = address(context, builder, array, args[1], args[2], ir.FloatType())
        return spread(builder, builder.load(place), context.get_value_type(like))

    return like(like, array, types.intp), generate


@intrinsic
def spread_sum(typing_context: Any, like: Any, array: Any, index: Any, other: Any) -> Any:
    """array[index] + array[other], as `spread_lanes` spreads one."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FloatType()
        one, two = (
            builder.load(address(context, builder, array, args[1], at, kind)) for at in args[2:]
        )
        return spread(builder, builder.fadd(one, two), context.get_value_type(like))

    return like(like, array, types.intp, types.intp), generate


@intrinsic
def store_lanes(typing_context: Any, vector: Any, array: Any, index: Any) -> Any:
    """Write a vector to a contiguous float32 array from flat position `index` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to = context.get_value_type(vector)
        builder.store(args[0], address(context, builder, array, args[1], args[2], to)).align = 4
        return context.get_dummy_value()

    return types.void(vector, array, types.intp), generate


@intrinsic
def load_some(typing_context: Any, like: Any, source: Any, at: Any, mask: Any) -> Any:
    """`like`, a line, with the floats of a contiguous float32 array from flat position `at` on in
    those lanes that a mask has bits for; the memory of others is not read."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        floats = context.get_value_type(like)
        place = address(context, builder, source, args[1], args[2], floats)
        number, lanes = ir.IntType(32), ir.VectorType(ir.IntType(1), floats.count)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(floats, [place.type, number, lanes, floats]),
            f"llvm.masked.load.v{floats.count}f32.p0",
        )
        bits = builder.bitcast(builder.trunc(args[3], ir.IntType(floats.count)), lanes)
        return builder.call(function, (place, number(4), bits, args[0]))

    return like(like, source, types.intp, types.int64), generate

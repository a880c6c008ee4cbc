"""Pieces of LLVM code that numba's intrinsics are generated from: pointers, vectors, words."""

import sys
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic


def compiles_for(feature: str) -> bool:
    """Whether numba compiles kernels for a feature of the processor, by LLVM's name.

    It does if the processor has it, or `NUMBA_CPU_FEATURES`, where that is set, lists it. Numba
    leaves some out: all of AVX where `NUMBA_ENABLE_AVX` is 0, and on processors with a slow one.
    """
    listed = config.CPU_FEATURES
    return f"+{feature}" in (get_host_cpu_features() if listed is None else listed).split(",")


def address(context: Any, builder: Any, array_type: Any, array: Any, index: Any, to: Any) -> Any:
    """A pointer to a `to` at flat position `index` of a contiguous array."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), to.as_pointer())


def load_vector(context: Any, builder: Any, signature: Any, args: Any, to: Any) -> Any:
    """The vector of type `to` at flat position args[1] of the contiguous array args[0], whose
    elements take four bytes each."""
    value = builder.load(address(context, builder, signature.args[0], args[0], args[1], to))
    value.align = 4
    return value


def spread(builder: Any, value: Any, to: Any) -> Any:
    """A vector of type `to` with `value` in every lane."""
    undefined = ir.Constant(to, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), to.count), [0] * to.count)
    return builder.shuffle_vector(first, undefined, zeros)


def fold(builder: Any, value: Any, lanes: int) -> Any:
    """The sum over a float vector's lanes: the halves are added until one lane is left.

    The order of the additions is the same on every processor.
    """
    while lanes > 1:
        lanes //= 2
        kind = ir.VectorType(ir.IntType(32), lanes)
        low = ir.Constant(kind, list(range(lanes)))
        high = ir.Constant(kind, list(range(lanes, 2 * lanes)))
        value = builder.fadd(
            builder.shuffle_vector(value, value, low), builder.shuffle_vector(value, value, high)
        )
    return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))


@intrinsic
def load_word(typing_context: Any, stream: Any, at: Any) -> Any:
    """Eight bytes of a contiguous uint8 array as a uint64, the first byte lowest."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        value = builder.load(address(context, builder, signature.args[0], args[0], args[1], word))
        value.align = 1
        return value if sys.byteorder == "little" else builder.bswap(value)

    return types.uint64(stream, types.intp), generate


@intrinsic
def prefetch(typing_context: Any, source: Any, at: Any) -> Any:
    """Have the byte at position `at` of a contiguous uint8 array fetched into the caches, where the
    processor can; `at` may lie behind the array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte, number = ir.IntType(8), ir.IntType(32)
        place = address(context, builder, signature.args[0], args[0], args[1], byte)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [byte.as_pointer(), number, number, number]),
            "llvm.prefetch.p0",
        )
        read, keep, data = (ir.Constant(number, value) for value in (0, 3, 1))
        builder.call(function, (place, read, keep, data))
        return context.get_dummy_value()

    return types.void(source, types.intp), generate

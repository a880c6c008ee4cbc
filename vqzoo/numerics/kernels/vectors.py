"""Short float vectors for numba kernels: a handful of LLVM vector instructions, by name.

Numba's auto-vectorizer keeps no accumulator in registers across an inner loop whose length is
only known at run time; these types do, for every sub-vector length with one compilation. A
vector is `LANES` wide, a few hardware registers: LLVM splits it for the processor at hand.
"""

import sys
from typing import Any

import llvmlite.binding as llvm  # type: ignore[import-untyped]
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

# Four AVX-512 registers, or two AVX ones, or four NEON ones: four accumulators of this width
# still fit the register file.
LANES: int = 64 if llvm.get_host_cpu_features().get("avx512f", False) else 16

# Points that are padded to and summed up together, on every processor: a multiple of LANES.
PART = 64

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_INTS = ir.VectorType(ir.IntType(32), LANES)


class _Floats(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


class _Ints(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"int32x{LANES}")


floats = _Floats()
ints = _Ints()


@register_model(_Floats)
class _FloatsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, _FLOATS)


@register_model(_Ints)
class _IntsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, _INTS)


@njit(nogil=True, cache=True)
def row_stride(n):  # type: ignore[no-untyped-def]
    """Floats from one dimension of n points to the next: whole parts, and no multiple of 4 KiB.

    Rows so far apart would compete for the same few lines of the first-level cache.
    """
    stride = (n + PART - 1) // PART * PART
    return stride + PART if stride % 1024 == 0 else stride


def address(context: Any, builder: Any, array_type: Any, array: Any, index: Any, to: Any) -> Any:
    """A pointer to `to` at flat position `index` of a contiguous array, for code generators."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), to.as_pointer())


def spread(builder: Any, value: Any, to: Any) -> Any:
    """A number in every lane of a vector of type `to`, for code generators."""
    undefined = ir.Constant(to, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), to.count), [0] * to.count)
    return builder.shuffle_vector(first, undefined, zeros)


def fold(builder: Any, value: Any, lanes: int) -> Any:
    """The sum over a float vector's lanes: halved until one is left, for code generators.

    The order is ours, not the processor's.
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
def load(typing_context: Any, array: Any, index: Any) -> Any:
    """The `LANES` floats of a contiguous float32 array from flat position `index` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(
            address(context, builder, signature.args[0], args[0], args[1], _FLOATS)
        )
        value.align = 4
        return value

    return floats(array, types.intp), generate


@intrinsic
def store(typing_context: Any, array: Any, index: Any, vector: Any) -> Any:
    """Write a vector into a contiguous float32 or int32 array at flat position `index`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to = _FLOATS if vector == floats else _INTS
        written = builder.store(
            args[2], address(context, builder, signature.args[0], args[0], args[1], to)
        )
        written.align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def splat(typing_context: Any, value: Any) -> Any:
    """A float32 or an int32, in every lane."""
    is_float = isinstance(value, types.Float)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return spread(builder, args[0], _FLOATS if is_float else _INTS)

    return (floats(types.float32) if is_float else ints(types.int32)), generate


@intrinsic
def broadcast(typing_context: Any, array: Any, index: Any) -> Any:
    """array[index] of a contiguous float32 array, index >= 0, in every lane.

    numba's own indexing looks whether `index` counts from the end: in the innermost loop that
    costs as much as the arithmetic.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = address(context, builder, signature.args[0], args[0], args[1], ir.FloatType())
        return spread(builder, builder.load(place), _FLOATS)

    return floats(array, types.intp), generate


@intrinsic
def multiply_add(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a·b + c, fused where the processor can."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(_FLOATS, [_FLOATS] * 3),
            f"llvm.fmuladd.v{LANES}f32",
        )
        return builder.call(function, args)

    return floats(floats, floats, floats), generate


@intrinsic
def add(typing_context: Any, a: Any, b: Any) -> Any:
    """a + b."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(args[0], args[1])

    return floats(floats, floats), generate


@intrinsic
def subtract(typing_context: Any, a: Any, b: Any) -> Any:
    """a - b."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fsub(args[0], args[1])

    return floats(floats, floats), generate


@intrinsic
def multiply(typing_context: Any, a: Any, b: Any) -> Any:
    """a · b."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fmul(args[0], args[1])

    return floats(floats, floats), generate


@intrinsic
def divide(typing_context: Any, a: Any, b: Any) -> Any:
    """a / b."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fdiv(args[0], args[1])

    return floats(floats, floats), generate


@intrinsic
def smaller(typing_context: Any, a: Any, b: Any) -> Any:
    """a where a < b, else b."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", args[0], args[1]), args[0], args[1])

    return floats(floats, floats), generate


@intrinsic
def where_smaller(typing_context: Any, a: Any, b: Any, chosen: Any, otherwise: Any) -> Any:
    """`chosen` where a < b, else `otherwise`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", args[0], args[1]), args[2], args[3])

    return ints(floats, floats, ints, ints), generate


@intrinsic
def load_ints(typing_context: Any, array: Any, index: Any) -> Any:
    """The `LANES` integers of a contiguous int32 array from flat position `index` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(address(context, builder, signature.args[0], args[0], args[1], _INTS))
        value.align = 4
        return value

    return ints(array, types.intp), generate


@intrinsic
def tagged(typing_context: Any, value: Any, mask: Any, tag: Any) -> Any:
    """The bits of `value` where `mask` has ones, those of `tag` elsewhere.

    As integers, positive numbers so tagged are in the order of their values, then of their tags.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], _INTS)
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
        largest = ir.Constant(_INTS, [2**31 - 1] * LANES)
        return builder.select(builder.icmp_signed(">", args[0], args[1]), args[0], largest)

    return ints(ints, ints), generate


@intrinsic
def total(typing_context: Any, a: Any) -> Any:
    """The sum over the lanes, in a fixed order."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return fold(builder, args[0], LANES)

    return types.float32(floats), generate


@intrinsic
def load_word(typing_context: Any, stream: Any, at: Any) -> Any:
    """Eight bytes of a contiguous uint8 array as a uint64, the first one lowest."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        value = builder.load(address(context, builder, signature.args[0], args[0], args[1], word))
        value.align = 1
        return value if sys.byteorder == "little" else builder.bswap(value)

    return types.uint64(stream, types.intp), generate

"""Short float vectors for numba kernels: a handful of LLVM vector instructions, by name.

Numba's auto-vectorizer does not keep accumulators in registers across an inner loop whose length is
known only at run time; these types do, with one compilation for every sub-vector length. A vector
is `LANES` wide, several hardware registers, which LLVM splits it into.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from vqzoo.numerics.kernels.codegen import address, compiles_for, fold, load_vector, spread

# Four AVX-512 registers, or two AVX ones, or four NEON ones: four accumulators of this width
# still fit the register file.
LANES: int = 64 if compiles_for("avx512f") else 16

FLOATS = ir.VectorType(ir.FloatType(), LANES)
INTS = ir.VectorType(ir.IntType(32), LANES)


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
        super().__init__(manager, fe_type, FLOATS)


@register_model(_Ints)
class _IntsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, INTS)


@intrinsic
def load(typing_context: Any, array: Any, index: Any) -> Any:
    """`LANES` floats of a contiguous float32 array, starting at flat position `index`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return load_vector(context, builder, signature, args, FLOATS)

    return floats(array, types.intp), generate


@intrinsic
def store(typing_context: Any, array: Any, index: Any, vector: Any) -> Any:
    """Write a vector to a contiguous float32 or int32 array, starting at flat position `index`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to = FLOATS if vector == floats else INTS
        place = address(context, builder, signature.args[0], args[0], args[1], to)
        builder.store(args[2], place).align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def splat(typing_context: Any, value: Any) -> Any:
    """A vector with one float32 or int32 in every lane."""
    is_float = isinstance(value, types.Float)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return spread(builder, args[0], FLOATS if is_float else INTS)

    return (floats(types.float32) if is_float else ints(types.int32)), generate


@intrinsic
def broadcast(typing_context: Any, array: Any, index: Any) -> Any:
    """A vector with array[index] of a contiguous float32 array in every lane; index >= 0.

    numba's own indexing checks for negative indices, which in the innermost loop costs as much as
    the arithmetic.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = address(context, builder, signature.args[0], args[0], args[1], ir.FloatType())
        return spread(builder, builder.load(place), FLOATS)

    return floats(array, types.intp), generate


@intrinsic
def multiply_add(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a·b + c, fused where the processor has such an instruction."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(FLOATS, [FLOATS] * 3),
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
def total(typing_context: Any, a: Any) -> Any:
    """The sum over the lanes, in a fixed order."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return fold(builder, args[0], LANES)

    return types.float32(floats), generate

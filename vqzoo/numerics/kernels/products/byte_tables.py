"""Look-ups of 64 codes at once in tables of 256 floats, which stay in registers.

AVX-512 VBMI looks up bytes: a table of 256 bytes is four registers, two instructions and a choice.
Four such tables hold floats. Three hold their upper bytes; with zeros for the fourth, they round to
16 bits of precision, and are exact for values that were float16 or bfloat16.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from vqzoo.numerics.arrays import Bytes, Floats
from vqzoo.numerics.kernels.codegen import address, compiles_for
from vqzoo.numerics.kernels.lines import LINE, line

CODES = 64  # that are looked up at once
PLANES = 3  # bytes of a float that `byte_planes` holds
_ENTRIES = 256
_LARGEST = 0x7F7FFFFF  # the bits of the largest float

HAS_BYTE_TABLES: bool = compiles_for("avx512vbmi")
"""Whether kernels are compiled for a processor with these instructions."""

_BYTE = ir.IntType(8)
_VECTOR = ir.VectorType(_BYTE, CODES)
_FLOATS = ir.VectorType(ir.FloatType(), LINE)


class _ByteVector(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"uint8x{CODES}")


byte_vector = _ByteVector()


@register_model(_ByteVector)
class _ByteVectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, _VECTOR)


def byte_planes(table: Floats) -> Bytes:
    """The tables of bytes, flat, (`PLANES`, 256), of at most 256 floats."""
    padded = np.zeros(_ENTRIES, np.float32)
    padded[: len(table)] = table
    bits = padded.view(np.uint32)
    sign = bits & np.uint32(1 << 31)
    nearest = np.minimum((bits ^ sign) + np.uint32(128), np.uint32(_LARGEST))
    bits = sign | nearest
    planes = [(bits >> np.uint64(shift)).astype(np.uint8) for shift in (8, 16, 24)]
    return np.concatenate(planes)


def is_exact(table: Floats) -> bool:
    """Whether `byte_planes` holds a table without rounding."""
    return not (np.ascontiguousarray(table).view(np.uint32) & np.uint32(255)).any()


@intrinsic
def load_bytes(typing_context: Any, source: Any, at: Any) -> Any:
    """The 64 bytes at position `at` of a contiguous uint8 array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(
            address(context, builder, signature.args[0], args[0], args[1], _VECTOR)
        )
        value.align = 1
        return value

    return byte_vector(source, types.intp), generate


@intrinsic
def zero_bytes(typing_context: Any) -> Any:
    """64 zeros."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(_VECTOR, [0] * CODES)

    return byte_vector(), generate


@intrinsic
def in_quarters(typing_context: Any, codes: Any) -> Any:
    """Codes in the order in which `quarter_of` joins what was looked up for them."""
    order = [16 * lane + 4 * quarter + i for quarter in range(4) for lane in range(4)
             for i in range(4)]  # fmt: skip

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _shuffled(builder, args[0], args[0], order)

    return byte_vector(byte_vector), generate


@intrinsic
def look_up_bytes(typing_context: Any, planes: Any, first: Any, codes: Any) -> Any:
    """The bytes of a table, 256 from position `first` of a contiguous uint8 array on, at codes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(_VECTOR, [_VECTOR] * 3),
            "llvm.x86.avx512.vpermi2var.qi.512",
        )
        parts = []
        for part in range(_ENTRIES // CODES):
            at = builder.add(args[1], ir.Constant(args[1].type, part * CODES))
            place = address(context, builder, signature.args[0], args[0], at, _VECTOR)
            parts.append(builder.load(place))
            parts[-1].align = 1
        low = builder.call(function, (parts[0], args[2], parts[1]))
        high = builder.call(function, (parts[2], args[2], parts[3]))
        is_high = builder.icmp_signed("<", args[2], ir.Constant(_VECTOR, [0] * CODES))
        return builder.select(is_high, high, low)

    return byte_vector(planes, types.intp, byte_vector), generate


def _quarter(number: int) -> Any:
    @intrinsic
    def quarter_of(typing_context: Any, lowest: Any, low: Any, high: Any, highest: Any) -> Any:
        """The floats, a line, of a quarter of the codes, from their bytes."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            half = number // 2 * 8
            pairs = [16 * lane + half + i for lane in range(4) for i in range(8)]
            order = [place for pair in pairs for place in (pair, pair + CODES)]
            words = ir.VectorType(ir.IntType(16), CODES // 2)
            lower = builder.bitcast(_shuffled(builder, args[0], args[1], order), words)
            upper = builder.bitcast(_shuffled(builder, args[2], args[3], order), words)
            start = number % 2 * 4
            pairs = [8 * lane + start + i for lane in range(4) for i in range(4)]
            order = [place for pair in pairs for place in (pair, pair + CODES // 2)]
            return builder.bitcast(_shuffled(builder, lower, upper, order), _FLOATS)

        return line(byte_vector, byte_vector, byte_vector, byte_vector), generate

    return quarter_of


first_quarter, second_quarter, third_quarter, fourth_quarter = map(_quarter, range(4))


def _shuffled(builder: Any, first: Any, second: Any, order: list[int]) -> Any:
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order)
    return builder.shuffle_vector(first, second, mask)

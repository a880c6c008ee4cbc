"""Lines of 16 codes for numba kernels: unpacked in registers, and looked up there.

LLVM makes one instruction of a look-up in a table of 16 floats where the processor has it
(AVX-512). With AVX2, four look-ups in tables of eight take its place, and 16 loads elsewhere.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from vqzoo.numerics.kernels.codegen import address, compiles_for, fold, spread
from vqzoo.numerics.kernels.lines import LINE, line

_INT = ir.IntType(32)
_CODES = ir.VectorType(_INT, LINE)
_BYTES = ir.VectorType(ir.IntType(8), LINE)
_FLOATS = ir.VectorType(ir.FloatType(), LINE)


class _CodeLine(types.Type):
    def __init__(self) -> None:
        super().__init__(name="code_line")


code_line = _CodeLine()


@register_model(_CodeLine)
class _CodeLineModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, _CODES)


@intrinsic
def load_codes(typing_context: Any, source: Any, at: Any) -> Any:
    """The 16 bytes at position `at` of a contiguous uint8 array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = address(context, builder, signature.args[0], args[0], args[1], _BYTES)
        value = builder.load(place)
        value.align = 1
        return builder.zext(value, _CODES)

    return code_line(source, types.intp), generate


@intrinsic
def bits_of(typing_context: Any, codes: Any, first: Any, mask: Any) -> Any:
    """The bits from number `first` on that are in `mask`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        shift, kept = (spread(builder, builder.trunc(arg, _INT), _CODES) for arg in args[1:])
        return builder.and_(builder.lshr(args[0], shift), kept)

    return code_line(code_line, types.int64, types.int64), generate


@intrinsic
def total_of(typing_context: Any, codes: Any) -> Any:
    """The sum of the codes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_INT, [_CODES]), f"llvm.vector.reduce.add.v{LINE}i32"
        )
        return builder.zext(builder.call(function, args), ir.IntType(64))

    return types.int64(code_line), generate


@intrinsic
def count_others(typing_context: Any, codes: Any, code: Any) -> Any:
    """The number of codes that differ from `code`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        same = spread(builder, builder.trunc(args[1], _INT), _CODES)
        bits = builder.bitcast(builder.icmp_unsigned("!=", args[0], same), ir.IntType(LINE))
        return builder.zext(builder.ctpop(bits), ir.IntType(64))

    return types.int64(code_line, types.int64), generate


@intrinsic
def add_where_bit(
    typing_context: Any, total: Any, source: Any, at: Any, mask: Any, values: Any
) -> Any:
    """total + the values of those lanes whose byte, of 16 from position `at` on of a contiguous
    uint8 array, has the bit of a mask."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = address(context, builder, source, args[1], args[2], _BYTES)
        held = builder.load(place)
        held.align = 1
        bit = spread(builder, builder.trunc(args[3], ir.IntType(8)), _BYTES)
        none = ir.Constant(_BYTES, [0] * LINE)
        chosen = builder.icmp_unsigned("!=", builder.and_(held, bit), none)
        zeros = ir.Constant(_FLOATS, [0.0] * LINE)
        return builder.fadd(args[0], builder.select(chosen, args[4], zeros))

    return line(line, source, types.intp, types.int64, line), generate


@intrinsic
def look_up_line(typing_context: Any, table: Any, codes: Any) -> Any:
    """The floats of a table, a line, at codes below 16."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        codes = builder.and_(args[1], ir.Constant(_CODES, [LINE - 1] * LINE))
        if compiles_for("avx2") and not compiles_for("avx512f"):
            return _look_up_eights(builder, args[0], codes)
        result = ir.Constant(_FLOATS, ir.Undefined)
        for lane in range(LINE):
            place = ir.Constant(_INT, lane)
            value = builder.extract_element(args[0], builder.extract_element(codes, place))
            result = builder.insert_element(result, value, place)
        return result

    return line(line, code_line), generate


def _look_up_eights(builder: Any, table: Any, codes: Any) -> Any:
    """The floats of a table at codes below 16, by AVX2's look-ups in tables of eight."""
    half = LINE // 2
    floats, integers = ir.VectorType(ir.FloatType(), half), ir.VectorType(_INT, half)
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(floats, [floats, integers]), "llvm.x86.avx2.permps"
    )
    lanes = [ir.Constant(integers, list(range(start, start + half))) for start in (0, half)]
    low, high = (builder.shuffle_vector(table, table, part) for part in lanes)
    parts = []
    for part in lanes:
        places = builder.shuffle_vector(codes, codes, part)
        is_high = builder.icmp_signed(">", places, ir.Constant(integers, [half - 1] * half))
        values = (builder.call(function, (source, places)) for source in (high, low))
        parts.append(builder.select(is_high, *values))
    return builder.shuffle_vector(*parts, ir.Constant(_CODES, list(range(LINE))))


@intrinsic
def as_line(typing_context: Any, codes: Any) -> Any:
    """The codes as floats."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.sitofp(args[0], _FLOATS)

    return line(code_line), generate


@intrinsic
def spread_line(typing_context: Any, value: Any) -> Any:
    """A float32 in all 16 places."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return spread(builder, args[0], _FLOATS)

    return line(types.float32), generate


@intrinsic
def multiply_add(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a·b + c of lines, or of vectors of any other width, rounded once where the processor can."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        product = builder.fmul(args[0], args[1], flags=("contract",))
        return builder.fadd(product, args[2], flags=("contract",))

    return a(a, a, a), generate


@intrinsic
def sum_line(typing_context: Any, a: Any) -> Any:
    """The sum of the 16 floats, in a fixed order."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return fold(builder, args[0], LINE)

    return types.float32(line), generate

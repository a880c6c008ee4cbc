"""Eight floats for numba kernels: a value for each of eight inputs, in one or two registers."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from vqzoo.numerics.kernels.codegen import address, load_vector, spread

OCTET = 8
_OCTET = ir.VectorType(ir.FloatType(), OCTET)


class _Octet(types.Type):
    def __init__(self) -> None:
        super().__init__(name="octet")


octet = _Octet()


@register_model(_Octet)
class _OctetModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, _OCTET)


@intrinsic
def load_octet(typing_context: Any, source: Any, at: Any) -> Any:
    """The octet at position `at` of a contiguous float32 array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return load_vector(context, builder, signature, args, _OCTET)

    return octet(source, types.intp), generate


@intrinsic
def store_octet(typing_context: Any, a: Any, target: Any, to: Any) -> Any:
    """Write an octet to position `to` of a contiguous float32 array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = address(context, builder, signature.args[1], args[1], args[2], _OCTET)
        builder.store(args[0], place).align = 4
        return context.get_dummy_value()

    return types.void(octet, target, types.intp), generate


@intrinsic
def add_octets(typing_context: Any, a: Any, b: Any) -> Any:
    """a + b."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(args[0], args[1])

    return octet(octet, octet), generate


@intrinsic
def add_times(typing_context: Any, a: Any, value: Any, b: Any) -> Any:
    """a + value·b for a float32 `value`, rounded once where the processor can."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        product = builder.fmul(spread(builder, args[1], _OCTET), args[2], flags=("contract",))
        return builder.fadd(args[0], product, flags=("contract",))

    return octet(octet, types.float32, octet), generate


@intrinsic
def spread_octet(typing_context: Any, value: Any) -> Any:
    """A float32 in all eight places."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return spread(builder, args[0], _OCTET)

    return octet(types.float32), generate

"""Kernels whose tasks are shared out among the threads of a team, none of which needs the GIL.

A team is an int64 array of five numbers: tasks that were taken; threads that have asked for some,
and those that get some; the address of OpenMP's `GOMP_parallel`, and the number of its threads. If
the address is 0, whoever calls the kernel brings the threads.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.codegen import address

_TAKEN, _ASKED, _MEMBERS, _PARALLEL_AT, _THREADS = range(5)
_BYTE, _INT, _WORD = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_MEMBER = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer()])
_PARALLEL = ir.FunctionType(ir.VoidType(), [_MEMBER.as_pointer(), _BYTE.as_pointer(), _INT, _INT])


@intrinsic
def on_team(typing_context: Any, team: Any, member: Any, args: Any) -> Any:
    """Call member(*args) on each thread of a team, and return when all calls have.

    Args:
        team: see above; if it has no address, this thread alone calls.
        member: a kernel that returns nothing.
        args: a tuple.

    Raises:
        MemoryError: a call failed, for which a kernel has no other reason.
    """
    return _on_team(typing_context, team, member, (), args)


@intrinsic
def on_team_with(typing_context: Any, team: Any, member: Any, kernel: Any, args: Any) -> Any:
    """`on_team` with calls of member(kernel, *args)."""
    return _on_team(typing_context, team, member, (kernel,), args)


def _on_team(typing_context: Any, team: Any, member: Any, kernels: Any, args: Any) -> Any:
    """The signature and the code of `on_team`, where kernels come before other arguments: they have
    a type, but no value, so that machine code that names them can be stored."""
    typed = typing_context.resolve_function_type(member, (*kernels, *args), {})

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        result = member.dispatcher.get_compile_result(typed)
        context.add_linking_libs([result.library])
        failed = cgutils.alloca_once_value(builder, _BYTE(0))
        pair = cgutils.pack_struct(builder, (values[-1], failed))
        data = cgutils.alloca_once_value(builder, pair)
        call = _caller(context, builder.module, result.fndesc, len(kernels), data.type)
        pointer = builder.bitcast(data, _BYTE.as_pointer())
        parallel, threads = (
            builder.load(_place(context, builder, team, values[0], _WORD(at)))
            for at in (_PARALLEL_AT, _THREADS)
        )
        with builder.if_else(builder.icmp_signed("==", parallel, _WORD(0))) as (then, otherwise):
            with then:
                builder.call(call, [pointer])
            with otherwise:
                run = builder.inttoptr(parallel, _PARALLEL.as_pointer())
                builder.call(run, [call, pointer, builder.trunc(threads, _INT), _INT(0)])
        with cgutils.if_unlikely(builder, cgutils.is_not_null(builder, builder.load(failed))):
            message = ("out of memory in a task of a kernel",)
            context.call_conv.return_user_exc(builder, MemoryError, message)
        return context.get_dummy_value()

    return types.void(team, member, *kernels, args), generate


def _caller(context: Any, module: Any, described: Any, kernels: int, data: Any) -> Any:
    """A function that OpenMP can call: it calls a kernel with the arguments at an address, and
    writes whether that failed to the address behind them."""
    function = ir.Function(module, _MEMBER, module.get_unique_name("team_member"))
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    args, failed = cgutils.unpack_tuple(
        builder, builder.load(builder.bitcast(function.args[0], data)), 2
    )
    status, _ = context.call_conv.call_function(
        builder,
        context.declare_function(module, described),
        described.restype,
        described.argtypes,
        [context.get_dummy_value()] * kernels + list(cgutils.unpack_tuple(builder, args)),
    )
    with cgutils.if_unlikely(builder, status.is_error):
        builder.store(_BYTE(1), failed)
    builder.ret_void()
    return function


@intrinsic
def take(typing_context: Any, team: Any, which: Any) -> Any:
    """team[which], which is then one more for all threads."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _place(context, builder, team, *args)
        return builder.atomic_rmw("add", place, _WORD(1), "monotonic")

    return types.int64(team, types.intp), generate


def _place(context: Any, builder: Any, team: Any, array: Any, index: Any) -> Any:
    return address(context, builder, team, array, index, _WORD)


@compiled(forceinline=True)
def joins(team):  # type: ignore[no-untyped-def]
    """Whether this thread may take tasks."""
    return take(team, _ASKED) < team[_MEMBERS]


@compiled(forceinline=True)
def take_rows(team, bounds):  # type: ignore[no-untyped-def]
    """The next rows that nobody has taken, (start, stop); none if all are.

    Args:
        bounds: (m, height): the number of rows, and those of a task.
    """
    m, height = bounds
    start = take(team, _TAKEN) * height
    return min(start, m), min(start + height, m)

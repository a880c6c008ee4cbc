"""The text of an ML program in fewer bytes: shared settings and short names."""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

FLOATS = {10, 11, 12}  # float16, float32 and float64 among the data types of MIL
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def shorten(model: Any) -> None:
    """Let operations share equal settings, and give short names to what they compute, in place.

    coremltools writes the strides, paddings and modes of each layer anew. What holds or decodes
    floating-point arrays keeps its name, by which importers know it.

    Args:
        model: `coremltools.proto.Model_pb2.Model` with an ML program without nested blocks.
    """
    for function in model.mlProgram.functions.values():
        inputs = {value.name for value in function.inputs}
        for block in function.block_specializations.values():
            _share_settings(block)
            _shorten_names(block, inputs | set(block.outputs))


def _is_setting(operation: Any) -> bool:
    """Whether an operation is a constant, and no array of floating-point numbers."""
    kind = operation.attributes["val"].type.tensorType if operation.type == "const" else None
    return kind is not None and (kind.rank == 0 or kind.dataType not in FLOATS)


def _share_settings(block: Any) -> None:
    first: dict[bytes, str] = {}
    renamed: dict[str, str] = {}
    kept = []
    for operation in block.operations:
        name = operation.outputs[0].name
        if _is_setting(operation) and name not in block.outputs:
            value = operation.attributes["val"].SerializeToString(deterministic=True)
            renamed[name] = first.setdefault(value, name)
            if renamed[name] != name:
                continue
        kept.append(_copy(operation))
    _rename(kept, renamed)
    del block.operations[:]
    block.operations.extend(kept)


def _shorten_names(block: Any, fixed: set[str]) -> None:
    """Rename what operations compute, but for some names, and the operations themselves."""
    operations = block.operations
    known = fixed | {
        operation.outputs[0].name
        for operation in operations
        if operation.type.startswith("const") and not _is_setting(operation)
    }
    fresh = (name for name in map(_short, count()) if name not in known)
    renamed = {
        output.name: next(fresh)
        for operation in operations
        for output in operation.outputs
        if output.name not in known
    }
    _rename(operations, renamed)
    for number, operation in enumerate(operations):
        operation.attributes["name"].immediateValue.tensor.strings.values[0] = _short(number)


def _short(number: int) -> str:
    """v0, v1, ..., v9, va, ..., v10 and so on."""
    digits = ""
    while number or not digits:
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return f"v{digits}"


def _rename(operations: Sequence[Any], renamed: Mapping[str, str]) -> None:
    for operation in operations:
        for output in operation.outputs:
            output.name = renamed.get(output.name, output.name)
        for argument in operation.inputs.values():
            for binding in argument.arguments:
                if binding.HasField("name"):
                    binding.name = renamed.get(binding.name, binding.name)


def _copy(operation: Any) -> Any:
    copied = type(operation)()
    copied.CopyFrom(operation)
    return copied

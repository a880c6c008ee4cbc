"""Object files are linked into the process, and refused where they do not fit it."""

import ctypes

import pytest
from llvmlite import binding

from vqzoo.numerics.machine_code import LinkError, can_link, link, used_symbols

pytestmark = pytest.mark.skipif(not can_link(), reason="no object files are linked here")

CALLS_ANOTHER = """
declare i64 @{name}(i64)

define i64 @one_more(i64 %value) {{
    %answer = call i64 @{name}(i64 %value)
    %more = add i64 %answer, 1
    ret i64 %more
}}
"""


def object_file(name: str) -> bytes:
    """Of a function that calls the C function `name`, and adds 1 to its answer."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_default_triple()
    machine = target.create_target_machine(codemodel="jitdefault", jit=True)
    return machine.emit_object(binding.parse_assembly(CALLS_ANOTHER.format(name=name)))


def test_linked_code_calls_functions_of_the_process() -> None:
    signature = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)

    linked = [link(object_file("labs")) for _ in range(2)]  # may define the same symbol

    assert [signature(each["one_more"])(-41) for each in linked] == [42, 42]
    with pytest.raises(KeyError):
        linked[0]["labs"]


def test_used_symbols_are_those_that_the_code_needs() -> None:
    used = used_symbols(object_file("labs"))

    assert "labs" in used
    assert "one_more" not in used


def test_missing_symbols_are_named() -> None:
    with pytest.raises(LinkError, match="no symbol vqzoo_lacks_this"):
        link(object_file("vqzoo_lacks_this"))


@pytest.mark.parametrize("image", [b"", b"\x7fELF\x01\x01", b"MZ" + bytes(100)])
def test_other_files_are_refused(image: bytes) -> None:
    with pytest.raises(LinkError, match="not a little-endian 64-bit ELF file"):
        link(image)

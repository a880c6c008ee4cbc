"""weight.bin of an ML program without its small arrays, which the program takes in.

It has version 2 of Core ML's blob storage: a header of 64 bytes (the number of arrays, the
version), and for each array a description of 64 bytes (a sentinel, the type, the number of bytes,
where they start), and the bytes themselves, all at multiples of 64.
"""

import struct
from collections.abc import Iterator
from typing import Any

from vqzoo.errors import VqzooError
from vqzoo.network.export.coreml.text import FLOATS

# A description, padding, and the reference to it take as much as a small array itself.
_MOST = 1024
_ALIGNMENT = 64
_HEADER = struct.Struct("<II56x")
_DESCRIPTION = struct.Struct("<IIQQ32x")
_SENTINEL = 0xDEADBEEF
_PLACE = slice(16, 24)  # of the bytes, in a description


def inline_small_arrays(model: Any, stored: bytes) -> bytes:
    """Move floating-point arrays of up to 1 kB from weight.bin into the program, in place.

    Args:
        model: `coremltools.proto.Model_pb2.Model` with an ML program.
        stored: what weight.bin has.

    Returns:
        What weight.bin is to have.

    Raises:
        VqzooError: it is not in the format that is known.
    """
    _, version = _HEADER.unpack_from(stored)
    if version != 2:
        raise VqzooError(f"coremltools wrote weight.bin in version {version}, not 2")
    kept = bytearray(_HEADER.size)
    places: dict[int, int] = {}
    for value in _values(model):
        if not value.HasField("blobFileValue"):
            continue
        at = value.blobFileValue.offset
        sentinel, _, size, begin = _DESCRIPTION.unpack_from(stored, at)
        if sentinel != _SENTINEL or begin + size > len(stored):
            raise VqzooError("weight.bin has no array where the program expects one")
        array = stored[begin : begin + size]
        if size <= _MOST and value.type.tensorType.dataType in FLOATS:
            value.immediateValue.tensor.bytes.values = array  # takes the place of the reference
            continue
        if at not in places:
            places[at] = len(kept)
            description = bytearray(stored[at : at + _DESCRIPTION.size])
            description[_PLACE] = struct.pack("<Q", len(kept) + len(description))
            kept += description + array
            kept += bytes(-len(kept) % _ALIGNMENT)
        value.blobFileValue.offset = places[at]
    _HEADER.pack_into(kept, 0, len(places), version)
    return bytes(kept)


def _values(model: Any) -> Iterator[Any]:
    """All values that stand in a program."""
    for function in model.mlProgram.functions.values():
        for block in function.block_specializations.values():
            for operation in block.operations:
                yield from operation.attributes.values()
                for argument in operation.inputs.values():
                    for binding in argument.arguments:
                        if binding.HasField("value"):
                            yield binding.value

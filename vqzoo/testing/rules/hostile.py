"""Rules for untrusted codes: anyone may have written an artifact."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from vqzoo.compression.decode import decode
from vqzoo.errors import PluginError
from vqzoo.plugin.code import Code, Floats, Indices, MethodCode, Part
from vqzoo.testing.broken import require
from vqzoo.testing.matrices import REFERENCE, gaussian
from vqzoo.testing.subject import Subject

_REFUSALS = (ValueError, IndexError, KeyError, TypeError, RuntimeError, AssertionError)


def damaged_codes_are_refused(subject: Subject) -> None:
    """A code that lacks a part, or whose part lost or repeated rows, makes `check` raise
    ValueError, or at the latest raises during decoding; it never decodes to a matrix of another
    shape. See `Code.require_indices`, `require_floats` and `require_fact`."""
    for text, options in subject.variants(REFERENCE):
        compressed = subject.quantize(gaussian(REFERENCE), options)
        for damage, code in _damaged(compressed.code):
            decoded = decode_unless_refused(subject, MethodCode(compressed.method, code))
            if decoded is None:
                continue
            require(
                tuple(decoded.shape) == REFERENCE.matrix_shape,
                f"{text}: {damage}, it decodes to {tuple(decoded.shape)}",
            )


def decode_unless_refused(subject: Subject, compressed: MethodCode) -> Tensor | None:
    """The matrix that a code decodes to; None if `check` or decoding refuses it."""
    try:
        subject.method.check(compressed.code)
        return decode(compressed, subject.plugins)
    except _REFUSALS:
        return None
    except PluginError as error:
        if not isinstance(error.__cause__, _REFUSALS):
            raise
        return None


def _damaged(code: Code) -> Iterator[tuple[str, Code]]:
    for name, part in code.parts.items():
        others = {key: value for key, value in code.parts.items() if key != name}
        yield f"without part {name!r}", replace(code, parts=others)
        for damage, tensor in _mangled(part.values if isinstance(part, Indices) else part.stored):
            parts = {**others, name: _with_tensor(part, tensor)}
            yield f"part {name!r} {damage}", replace(code, parts=parts)


def _mangled(tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    for dim in range(tensor.dim()):
        if tensor.shape[dim] > 1:
            yield f"cut along dimension {dim}", tensor.narrow(dim, 0, tensor.shape[dim] - 1)
        yield f"doubled along dimension {dim}", torch.cat([tensor, tensor], dim)
    yield "flattened and nested", tensor.reshape(1, 1, 1, -1)


def _with_tensor(part: Part, tensor: Tensor) -> Part:
    return (
        replace(part, values=tensor) if isinstance(part, Indices) else Floats(tensor, part.exponent)
    )

"""Rules for transforms: `reconstruct` undoes `forward`."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from vqzoo.compression.decode import decode
from vqzoo.plugin.code import MethodCode
from vqzoo.plugin.transform import Transform
from vqzoo.testing.broken import require
from vqzoo.testing.matrices import REFERENCE, SHAPES, VALUES, Case, gaussian
from vqzoo.testing.rules.hostile import decode_unless_refused
from vqzoo.testing.subject import TransformSubject

TOLERANCE = 1e-5  # a rotation in float32


def reconstruct_inverts_forward(subject: TransformSubject) -> None:
    """`reconstruct`, applied to exactly what `forward` returned, gives the original matrix within
    1e-5 of its Frobenius norm: only the quantizer may lose information. Divide by the values that
    are stored (`Floats.values`), not by those before rounding."""
    for what, case, matrix in _matrices():
        for text, options in subject.variants(case):
            result = subject.forward(matrix, options, case)
            if result is None:
                continue
            transformed, code = result
            params = code.floats() | {Transform.CHILD: transformed}
            for name, child in code.children.items():
                params[name] = decode(child, subject.plugins)
            restored = subject.transform.reconstruct(code, params)
            require(
                restored.shape == matrix.shape,
                f"{what}, {text}: reconstruct returned shape {tuple(restored.shape)}",
            )
            difference = float((restored.double() - matrix.double()).norm())
            limit = TOLERANCE * float(matrix.double().norm())
            require(
                difference <= limit,
                f"{what}, {text}: off by {difference:.3g}, more than {limit:.3g}",
            )


def children_of_the_wrong_shape_are_refused(subject: TransformSubject) -> None:
    """A child `weight` that lost a row or a column makes `check` raise ValueError, or at the latest
    raises during decoding; it never decodes to a matrix of another shape than the code's, nor to
    one with NaN."""
    for text, options in subject.variants(REFERENCE):
        result = subject.forward(gaussian(REFERENCE), options)
        require(result is not None, f"{text}: the transform skipped it")
        assert result is not None
        transformed, code = result
        for lost, smaller in (("row", transformed[1:]), ("column", transformed[:, 1:])):
            child = subject.rounded(smaller.contiguous())
            damaged = replace(code, children={**code.children, Transform.CHILD: child})
            decoded = decode_unless_refused(subject, MethodCode(subject.transform.name, damaged))
            if decoded is None:
                continue
            require(
                tuple(decoded.shape) == REFERENCE.matrix_shape
                and bool(torch.isfinite(decoded).all()),
                f"{text}: a child that lost a {lost} decodes to {tuple(decoded.shape)}",
            )


def _matrices() -> Iterator[tuple[str, Case, Tensor]]:
    for case in SHAPES:
        yield case.name, case, gaussian(case)
    for name, make in VALUES.items():
        yield name, REFERENCE, make(gaussian(REFERENCE))

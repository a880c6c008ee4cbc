"""What a transform does is undone."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from vqzoo.compression.decode import decode
from vqzoo.plugin.code import MethodCode
from vqzoo.plugin.transform import Transform
from vqzoo.testing.broken import require
from vqzoo.testing.matrices import REFERENCE, SHAPES, VALUES, Case, gaussian
from vqzoo.testing.rules.hostile import decoded_unless_refused
from vqzoo.testing.subject import TransformSubject

UNDOING = 1e-5  # a rotation in float32


def undoing_gives_the_matrix_back(subject: TransformSubject) -> None:
    """`reconstruct` on exactly what `forward` returned is the matrix that it was given, within
    1e-5 of its Frobenius norm: what is lost is lost by the quantizer alone. Divide by the values
    that are stored (`Floats.values`), not by those before their rounding."""
    for what, case, matrix in _matrices():
        for text, options in subject.variants(case):
            made = subject.forward(matrix, options, case)
            if made is None:
                continue
            changed, code = made
            params = code.floats() | {Transform.CHILD: changed}
            for name, child in code.children.items():
                params[name] = decode(child, subject.plugins)
            back = subject.transform.reconstruct(code, params)
            require(back.shape == matrix.shape, f"{what}, {text}: {tuple(back.shape)} comes back")
            far = float((back.double() - matrix.double()).norm())
            limit = UNDOING * float(matrix.double().norm())
            require(far <= limit, f"{what}, {text}: off by {far:.3g}, more than {limit:.3g}")


def children_of_another_shape_are_refused(subject: TransformSubject) -> None:
    """A child `weight` that lost a row or a column is refused by `check`, or raises when it is
    decoded: it never becomes a matrix of another shape than the code's, and never of NaN."""
    for text, options in subject.variants(REFERENCE):
        made = subject.forward(gaussian(REFERENCE), options)
        require(made is not None, f"{text}: it was skipped")
        assert made is not None
        changed, code = made
        for what, smaller in (("a row", changed[1:]), ("a column", changed[:, 1:])):
            child = subject.rounded(smaller.contiguous())
            bad = replace(code, children={**code.children, Transform.CHILD: child})
            decoded = decoded_unless_refused(subject, MethodCode(subject.transform.name, bad))
            if decoded is None:
                continue
            require(
                tuple(decoded.shape) == REFERENCE.matrix_shape
                and bool(torch.isfinite(decoded).all()),
                f"{text}: a child without {what} decodes to {tuple(decoded.shape)}",
            )


def _matrices() -> Iterator[tuple[str, Case, Tensor]]:
    for case in SHAPES:
        yield case.name, case, gaussian(case)
    for name, make in VALUES.items():
        yield name, REFERENCE, make(gaussian(REFERENCE))

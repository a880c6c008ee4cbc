"""All kinds of matrices go in; sound codes come out."""

import torch

from vqzoo.errors import PluginError
from vqzoo.testing.broken import require
from vqzoo.testing.matrices import REFERENCE, SHAPES, VALUES, Case, gaussian
from vqzoo.testing.subject import Subject


def every_shape_is_compressed_or_skipped(subject: Subject) -> None:
    """A matrix of any shape, however small or odd, a convolution's included, is compressed to a
    code that decodes to float32 of that shape, or refused by `SkipLayer` with a reason."""
    for case in SHAPES:
        for text, options in subject.variants(case):
            _decodes(subject, gaussian(case), options, case, f"{case.name}, {text}")


def every_value_is_compressed_or_skipped(subject: Subject) -> None:
    """Constant, zero, huge and tiny weights, outliers and rows of very different size are finite
    weights like others: compressed to a code of finite values, or refused by `SkipLayer`."""
    for name, make in VALUES.items():
        for text, options in subject.variants(REFERENCE):
            matrix = make(gaussian(REFERENCE))
            _decodes(subject, matrix, options, REFERENCE, f"{name}, {text}")


def ordinary_weights_are_not_skipped(subject: Subject) -> None:
    """A 64 × 48 matrix of normal weights is compressed with every rung of the ladder."""
    for text, options in subject.variants(REFERENCE):
        found = subject.compress(gaussian(REFERENCE), options)
        require(found is not None, f"{text}: it was skipped")


def empty_and_nan_never_pass(subject: Subject) -> None:
    """A matrix without weights, or with one that is NaN or infinite, is refused by the core before
    the method sees it; a method need not look."""
    options = subject.finest()
    bad = gaussian(REFERENCE)
    bad[3, 5] = float("nan")
    for what, matrix in (("NaN", bad), ("an empty matrix", torch.empty(0, 48))):
        try:
            subject.quantize(matrix, options)
        except PluginError:
            continue
        require(False, f"{what} was compressed")


def _decodes(
    subject: Subject, matrix: torch.Tensor, options: object, case: Case, what: str
) -> None:
    found = subject.compress(matrix, options, case)
    if found is None:
        return
    decoded = found[1]
    require(
        tuple(decoded.shape) == case.matrix_shape and decoded.dtype == torch.float32,
        f"{what}: decoded to {tuple(decoded.shape)} {decoded.dtype}",
    )
    require(bool(torch.isfinite(decoded).all()), f"{what}: decoded to NaN or infinite values")

"""Rules for the matrices that a method must accept."""

from typing import Any

import torch
from torch import Tensor

from vqzoo.errors import PluginError
from vqzoo.testing.broken import require
from vqzoo.testing.matrices import REFERENCE, SHAPES, VALUES, Case, gaussian
from vqzoo.testing.subject import Subject


def every_shape_is_compressed_or_skipped(subject: Subject) -> None:
    """A matrix of any shape, however small or odd, from a linear layer or a convolution, is
    compressed to a code that decodes to float32 of that shape, or refused by a `SkipLayer` that
    says why."""
    for case in SHAPES:
        for text, options in subject.variants(case):
            _check_decoded(subject, gaussian(case), options, case, f"{case.name}, {text}")


def every_value_is_compressed_or_skipped(subject: Subject) -> None:
    """Constant, zero, huge and tiny weights, outliers and rows of very different scale are finite
    weights like any others: they are compressed to a code of finite values, or refused by a
    `SkipLayer` that says why."""
    for name, make in VALUES.items():
        for text, options in subject.variants(REFERENCE):
            matrix = make(gaussian(REFERENCE))
            _check_decoded(subject, matrix, options, REFERENCE, f"{name}, {text}")


def ordinary_weights_are_not_skipped(subject: Subject) -> None:
    """Every rung of the ladder compresses a 64 × 48 matrix of normally distributed weights."""
    for text, options in subject.variants(REFERENCE):
        result = subject.compress(gaussian(REFERENCE), options)
        require(result is not None, f"{text}: the method skipped it")


def empty_and_nonfinite_matrices_are_refused(subject: Subject) -> None:
    """The core refuses a matrix that is empty, or that holds NaN or infinite weights, before the
    method sees it: a method need not check for them."""
    options = subject.finest()
    nan = gaussian(REFERENCE)
    nan[3, 5] = float("nan")
    for what, matrix in (("a matrix with NaN", nan), ("an empty matrix", torch.empty(0, 48))):
        try:
            subject.quantize(matrix, options)
        except PluginError:
            continue
        require(False, f"{what} was compressed")


def _check_decoded(subject: Subject, matrix: Tensor, options: Any, case: Case, what: str) -> None:
    result = subject.compress(matrix, options, case)
    if result is None:
        return
    decoded = result[1]
    require(
        tuple(decoded.shape) == case.matrix_shape and decoded.dtype == torch.float32,
        f"{what}: decoded to {tuple(decoded.shape)} {decoded.dtype}",
    )
    require(bool(torch.isfinite(decoded).all()), f"{what}: decoded to NaN or infinite values")

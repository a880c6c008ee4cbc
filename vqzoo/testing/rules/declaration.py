"""What a method says of itself."""

import math
from typing import Any

from vqzoo.compression.options import validate_options
from vqzoo.errors import UsageError
from vqzoo.plugin.method import SkipLayer
from vqzoo.testing.broken import require
from vqzoo.testing.matrices import REFERENCE, SHAPES, Case
from vqzoo.testing.subject import QuantizerSubject, Subject


def it_introduces_itself(subject: Subject) -> None:
    """`summary` is one line for `vqzoo methods`, and every option has a description."""
    method = subject.method
    require(bool(method.summary), "it has no summary")
    require("\n" not in method.summary, "its summary has several lines")
    for name, field in method.Options.model_fields.items():
        require(bool(field.description), f"option {name} has no Field(description=...)")


def options_are_scalars_that_text_can_give(subject: Subject) -> None:
    """The command line passes `-o name=value` as text, and artifacts record options as JSON.

    Each option is a bool, an integer, a float, a text or None, and reading the text of its value
    gives that value back.
    """
    for _, options in subject.rungs(REFERENCE):
        for name, value in options.model_dump().items():
            scalar = value is None or isinstance(value, bool | int | float | str)
            require(scalar, f"option {name} is a {type(value).__name__}")
        given = {n: str(v) for n, v in options.model_dump().items() if v is not None}
        require(
            validate_options(subject.method, given) == options,
            f"reading {given} gives other options than {options!r}",
        )


def unknown_options_are_refused(subject: Subject) -> None:
    """A misspelt option is an error, never ignored: `Options` forbids what it does not know."""
    try:
        validate_options(subject.method, {"no_such_option_": 1})
    except UsageError:
        return
    require(False, "Options took the unknown option no_such_option_")


def fitting_is_told_and_done_once(subject: QuantizerSubject) -> None:
    """`fit` says through `note` what it clamped, and fitting what already fits changes nothing."""
    for case in SHAPES:
        for given in subject.quantizer.ladder:
            asked = validate_options(subject.quantizer, given)
            _check_fit(subject, asked, case)


def _check_fit(subject: QuantizerSubject, asked: Any, case: Case) -> None:
    said: list[str] = []
    try:
        fitted = subject.quantizer.fit(*case.matrix_shape, asked, said.append)
    except SkipLayer:
        return
    require(bool(said) or fitted == asked, f"{case.name}: {asked!r} was clamped without a note")
    again = subject.quantizer.fit(*case.matrix_shape, fitted, said.append)
    require(again == fitted, f"{case.name}: {fitted!r}, fitted again, is {again!r}")


def paper_bits_are_a_size(subject: QuantizerSubject) -> None:
    """`paper_bits` is the source's own formula: a positive number of bits, or None."""
    for text, options in subject.rungs(REFERENCE):
        bits: Any = subject.quantizer.paper_bits(*REFERENCE.matrix_shape, options)
        require(
            bits is None or (math.isfinite(bits) and bits > 0), f"{text}: paper_bits is {bits!r}"
        )

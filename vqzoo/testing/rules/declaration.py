"""Rules for what a method declares: its summary, its options, how they fit, the paper's size."""

import math
from typing import Any

from vqzoo.compression.options import validate_options
from vqzoo.errors import UsageError
from vqzoo.plugin.method import SkipLayer
from vqzoo.testing.broken import require
from vqzoo.testing.matrices import REFERENCE, SHAPES, Case
from vqzoo.testing.subject import QuantizerSubject, Subject


def it_describes_itself(subject: Subject) -> None:
    """`summary` is one line for `vqzoo methods`, and every option has a description."""
    method = subject.method
    require(bool(method.summary), "its summary is empty")
    require("\n" not in method.summary, "its summary has more than one line")
    for name, field in method.Options.model_fields.items():
        require(bool(field.description), f"option {name} has no Field(description=...)")


def options_can_be_given_as_text(subject: Subject) -> None:
    """Each option is a bool, an int, a float, a str or None, and parsing the text of its value
    gives the value back: the command line passes `-o name=value` as text, and artifacts record
    options as JSON."""
    for _, options in subject.rungs(REFERENCE):
        for name, value in options.model_dump().items():
            scalar = value is None or isinstance(value, bool | int | float | str)
            require(scalar, f"option {name} is a {type(value).__name__}")
        texts = {n: str(v) for n, v in options.model_dump().items() if v is not None}
        require(
            validate_options(subject.method, texts) == options,
            f"parsing {texts} gives other options than {options!r}",
        )


def unknown_options_are_refused(subject: Subject) -> None:
    """`Options` forbids names that it does not know: a misspelt option is an error and is never
    ignored."""
    try:
        validate_options(subject.method, {"no_such_option_": 1})
    except UsageError:
        return
    require(False, "Options accepted the unknown option no_such_option_")


def fit_notes_what_it_clamps_and_is_idempotent(subject: QuantizerSubject) -> None:
    """`fit` reports each option that it clamps through `note`, and leaves fitted options as they
    are."""
    for case in SHAPES:
        for rung in subject.quantizer.ladder:
            _check_fit(subject, validate_options(subject.quantizer, rung), case)


def _check_fit(subject: QuantizerSubject, options: Any, case: Case) -> None:
    notes: list[str] = []
    try:
        fitted = subject.quantizer.fit(*case.matrix_shape, options, notes.append)
    except SkipLayer:
        return
    require(
        bool(notes) or fitted == options, f"{case.name}: {options!r} was clamped without a note"
    )
    refitted = subject.quantizer.fit(*case.matrix_shape, fitted, notes.append)
    require(refitted == fitted, f"{case.name}: fitting {fitted!r} again gives {refitted!r}")


def paper_bits_are_positive(subject: QuantizerSubject) -> None:
    """`paper_bits` follows the formula of the method's source: a positive number of bits, or None
    if the source gives no formula."""
    for text, options in subject.rungs(REFERENCE):
        bits: Any = subject.quantizer.paper_bits(*REFERENCE.matrix_shape, options)
        require(
            bits is None or (math.isfinite(bits) and bits > 0), f"{text}: paper_bits is {bits!r}"
        )

"""Options of a method for one matrix: validated, fitted to its shape, or chosen for a ratio."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from vqzoo.compression.selection import MethodChoice
from vqzoo.errors import PluginError, UsageError, cause, invalid_field
from vqzoo.plugin.method import Method, Options, SkipLayer
from vqzoo.plugin.quantizer import Quantizer

DEFAULT_RATIO = 16.0


def choose_options(
    quantizer: Quantizer,
    shape: tuple[int, int],
    choice: MethodChoice,
    note: Callable[[str], None],
) -> Any:
    """The options for an (m, n) matrix: those of `choice`, or the best that reach its ratio.

    Options that `choice` fixes hold in either case. Where `choice` has neither options nor a ratio,
    the ratio is 16.

    Args:
        quantizer: the method.
        shape: (m, n).
        choice: what the user asked for.
        note: takes a line about an option that had to change.

    Raises:
        UsageError: an option is unknown or out of bounds.
        SkipLayer: no options fit this shape.
    """
    options = validate_options(quantizer, choice.options)
    ratio = target_ratio(choice)
    if ratio is None:
        return quantizer.fit(*shape, options, note)
    fixed = {name: getattr(options, name) for name in choice.options}
    chosen = quantizer.options_for(*shape, ratio, fixed)
    if chosen is not None:
        for name, value in fixed.items():
            if getattr(chosen, name) != value:
                note(f"{name}={value} does not fit here: {name}={getattr(chosen, name)}")
        return chosen
    if choice.ratio is not None:
        with_fixed = " that go with " + ", ".join(choice.options) if choice.options else ""
        raise SkipLayer(f"{quantizer.name} has no options for {ratio:g}x{with_fixed} here")
    return quantizer.fit(*shape, options, note)


def target_ratio(choice: MethodChoice) -> float | None:
    """The ratio to choose options for: 16 where neither ratio nor options are given; None where
    only options are."""
    if choice.ratio is None and not choice.options:
        return DEFAULT_RATIO
    return choice.ratio


def validate_options(method: Method, values: Mapping[str, Any]) -> Options:
    """A method's options from values by name; text is converted to the declared types.

    Raises:
        UsageError: an option is unknown or out of bounds; one line that names the option and the
            ones that there are.
        PluginError: the method's own validation failed.
    """
    try:
        return method.Options(**values)
    except ValidationError as error:
        field = invalid_field(error)
        name = field.name or "options"
        if field.unknown:
            known = ", ".join(method.Options.model_fields) or "none"
            raise UsageError(f"{method.name} has no option {name!r}; it has: {known}") from None
        raise UsageError(
            f"{method.name}: option {name}={field.value!r}: {field.reason} "
            f"(see `vqzoo methods {method.name}`)"
        ) from None
    except Exception as error:
        raise PluginError(f"the Options of {method.name} failed: {cause(error)}") from error

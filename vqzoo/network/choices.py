"""Methods, their options and transforms as `vqzoo.compress` takes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from vqzoo.compression.selection import MethodChoice, TransformChoice
from vqzoo.errors import UsageError

# A name, alone or with options; in a list, transforms and the method behind them.
Choice = str | tuple[str, Mapping[str, Any]]
Rule = Choice | list[Choice]


def method_choices(
    method: str | Mapping[str, Rule],
    ratio: float | None,
    transforms: Sequence[Choice],
    options: Mapping[str, Any],
) -> tuple[MethodChoice | None, list[tuple[str, MethodChoice]]]:
    """The method for the selected layers (None if there are rules alone), and the rules.

    Raises:
        UsageError: options beside a mapping, or a rule without a method.
    """
    steps = tuple(TransformChoice(*_named_options(step)) for step in transforms)
    if isinstance(method, str):
        return MethodChoice(method, options, ratio, steps), []
    if options:
        raise UsageError(
            f"options {', '.join(options)} belong to no method: put them into the mapping"
        )
    return None, [
        (selector, _rule_choice(selector, rule, ratio, steps)) for selector, rule in method.items()
    ]


def _rule_choice(
    selector: str, rule: Rule, ratio: float | None, transforms: tuple[TransformChoice, ...]
) -> MethodChoice:
    """A rule's choice; `ratio` and `transforms` hold where it has none of its own."""
    if isinstance(rule, list):
        if not rule:
            raise UsageError(f"the rule for {selector!r} is an empty list: end it in a method")
        transforms = tuple(TransformChoice(*_named_options(step)) for step in rule[:-1])
        rule = rule[-1]
    name, options = _named_options(rule)
    others = {key: value for key, value in options.items() if key != "ratio"}
    return MethodChoice(name, others, options.get("ratio", ratio), transforms)


def _named_options(choice: Choice) -> tuple[str, Mapping[str, Any]]:
    """A name and its options."""
    return (choice, {}) if isinstance(choice, str) else choice

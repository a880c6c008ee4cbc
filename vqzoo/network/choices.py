"""Methods, their options and transforms as `vqzoo.compress` takes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from vqzoo.budget.task import Limit
from vqzoo.compression.selection import MethodChoice, TransformChoice
from vqzoo.errors import UsageError
from vqzoo.plugin.text import parse_methods

# A name, alone or with options; in a list, transforms and the method behind them.
Choice = str | tuple[str, Mapping[str, Any]]
Rule = Choice | list[Choice]


def method_choices(
    method: str | Mapping[str, Rule] | None,
    ratio: float | None,
    transforms: Sequence[Choice],
    options: Mapping[str, Any],
    limit: Limit | None,
) -> tuple[MethodChoice | None, list[tuple[str, MethodChoice]]]:
    """The method for the selected layers (None if there are rules alone), and the rules.

    Raises:
        UsageError: options beside a mapping or beside several methods, a rule without a method,
            several methods or none without a budget, or a ratio beside one.
    """
    if method is None:
        raise UsageError("give a method, or a budget, as in size='2.3MB'")
    if limit is not None and ratio is not None:
        raise UsageError(f"{limit.option} and ratio= both choose what layers are made of: give one")
    steps = tuple(TransformChoice(*_named_options(step)) for step in transforms)
    if isinstance(method, str):
        return _choice(method, options, ratio, steps, limit), []
    if options:
        raise UsageError(
            f"options {', '.join(options)} belong to no method: put them into the mapping"
        )
    return None, [
        (selector, _rule_choice(selector, rule, ratio, steps, limit))
        for selector, rule in method.items()
    ]


def _rule_choice(
    selector: str,
    rule: Rule,
    ratio: float | None,
    transforms: tuple[TransformChoice, ...],
    limit: Limit | None,
) -> MethodChoice:
    """A rule's choice; `ratio` and `transforms` hold where it has none of its own."""
    if isinstance(rule, list):
        if not rule:
            raise UsageError(f"the rule for {selector!r} is an empty list: end it in a method")
        transforms = tuple(TransformChoice(*_named_options(step)) for step in rule[:-1])
        rule = rule[-1]
    name, options = _named_options(rule)
    others = {key: value for key, value in options.items() if key != "ratio"}
    return _choice(name, others, options.get("ratio", ratio), transforms, limit)


def _choice(
    text: str,
    options: Mapping[str, Any],
    ratio: float | None,
    transforms: tuple[TransformChoice, ...],
    limit: Limit | None,
) -> MethodChoice:
    """The choice of one method, or of several joined by commas."""
    name, *others = parse_methods(text)
    if others and limit is None:
        raise UsageError(
            f"{text}: it takes a budget to choose between methods: give size='2.3MB', or one method"
        )
    if others and (options or ratio):
        raise UsageError(f"options and ratios belong to one method: leave them out beside {text}")
    return MethodChoice(name, options, ratio, transforms, tuple(others))


def _named_options(choice: Choice) -> tuple[str, Mapping[str, Any]]:
    """A name and its options."""
    return (choice, {}) if isinstance(choice, str) else choice

"""Which methods know the price of a bit, and which of them a budget chooses from by default."""

from collections.abc import Sequence
from dataclasses import replace

from vqzoo.compression.selection import LayerPlan, MethodChoice
from vqzoo.errors import UsageError
from vqzoo.plugin.manager import Plugins

_OWN = "vqzoo"  # the distribution of the built-in methods


def methods_with_price(plugins: Plugins) -> list[str]:
    """The installed methods that know the price of a bit: built-in ones first, then by name."""
    entries = sorted(
        (entry for entry in plugins.quantizers if entry.item.price_option is not None),
        key=lambda entry: (entry.origin.distribution != _OWN, entry.name),
    )
    return [plugins.method_name(entry) for entry in entries]


def default_methods(plugins: Plugins, option: str) -> list[str]:
    """The methods that a budget chooses from where the user names none: those that know the price
    of a bit.

    Args:
        plugins: the installed plugins.
        option: the budget's option, for the error message.

    Raises:
        UsageError: none is installed.
    """
    methods = methods_with_price(plugins)
    if not methods:
        raise UsageError(
            f"{option} needs a method that knows the price of a bit, and none is installed: name "
            "several methods to choose from, or a method and a ratio"
        )
    return methods


def check_sizes_are_open(plans: Sequence[LayerPlan], plugins: Plugins, option: str) -> None:
    """Refuse a budget for layers all of which have a fixed size.

    Raises:
        UsageError: says what to do.
    """
    if all(is_fixed(plan.choice, plugins) for plan in plans):
        methods = ", ".join(dict.fromkeys(plan.choice.method for plan in plans))
        known = ", ".join(methods_with_price(plugins)) or "none is installed"
        raise UsageError(
            f"{option}: the size of no layer is left to choose ({methods}): let a layer have a "
            f"method that knows the price of a bit ({known}) without ratio, or one of several "
            "methods"
        )


def is_fixed(choice: MethodChoice, plugins: Plugins) -> bool:
    """Whether a layer with this choice has a size that no price changes."""
    return not choice.others and price_option(choice, plugins) is None


def price_option(choice: MethodChoice, plugins: Plugins) -> str | None:
    """The option of a method that takes the price; None where the method knows none, or the user
    chose the layer's size in another way."""
    option = plugins.quantizers.get(choice.method).item.price_option
    fixed = choice.ratio is not None or option in choice.options
    return None if fixed else option


def at_price(choice: MethodChoice, plugins: Plugins, price: float) -> MethodChoice:
    """A method that knows the price of a bit, at this one."""
    option = price_option(choice, plugins)
    assert option is not None
    return replace(choice, options={**choice.options, option: price})

"""Which methods know the price of a bit, and the layers that get it."""

from collections.abc import Sequence
from dataclasses import replace

from vqzoo.compression.selection import LayerPlan
from vqzoo.errors import UsageError
from vqzoo.plugin.manager import Plugins
from vqzoo.plugin.quantizer import Quantizer
from vqzoo.plugin.registry import Registered
from vqzoo.progress import Watcher
from vqzoo.runs.recipe import NO_IMAGES, Recipe

_OWN = "vqzoo"  # the distribution of the built-in methods


def with_budget_method(recipe: Recipe, plugins: Plugins, watcher: Watcher) -> Recipe:
    """A recipe whose methods can keep its budget: without a method, it gets one that knows the
    price of a bit.

    Of several such methods, built-in ones come first, then the first by name.

    Raises:
        UsageError: no method of the recipe, or none that is installed, knows a price; or an
            option fixes it.
    """
    if recipe.budget is None:
        return recipe
    knowing = sorted(
        (entry for entry in plugins.quantizers if entry.item.price_option is not None),
        key=lambda entry: (entry.origin.distribution != _OWN, entry.name),
    )
    names = ", ".join(plugins.method_name(entry) for entry in knowing) or "none is installed"
    if recipe.method is None:
        if not knowing:
            raise UsageError(
                f"{recipe.budget} needs a method that knows the price of a bit, and none is "
                "installed: give --method and --ratio"
            )
        method = plugins.method_name(knowing[0])
        others = f" (of {names})" if len(knowing) > 1 else ""
        watcher.say(f"Method: {method}{others}.")
        return recipe.model_copy(update={"method": method})
    _check_options(recipe, plugins.quantizers.get(recipe.method))
    named = [recipe.method, *(rule.method for rule in recipe.rules)]
    if all(plugins.quantizers.get(name).item.price_option is None for name in named):
        raise UsageError(
            f"{recipe.budget}: {recipe.method} knows no price of a bit: leave --method out, give a "
            f"method that does ({names}), or --ratio in the place of {recipe.budget}"
        )
    return recipe


def _check_options(recipe: Recipe, entry: Registered[Quantizer]) -> None:
    option = entry.item.price_option
    if option is not None and option in recipe.options:
        raise UsageError(
            f"{recipe.budget} chooses the option {option} of {entry.name}: leave one of them out"
        )


def with_budget_images(recipe: Recipe, embedded: str | None, watcher: Watcher) -> Recipe:
    """A recipe that calibrates under a budget, where the network comes with images.

    Args:
        recipe: the request; `--calibrate none` keeps it from calibrating.
        embedded: the data that comes with the network, if any.
        watcher: is told what is added.

    Raises:
        UsageError: the budget is judged by held-out images, and there are none.
    """
    if recipe.budget is not None and recipe.calibrate is None and embedded is not None:
        watcher.say(
            f"Calibrating on {embedded}, which comes with the network; --calibrate none does not."
        )
        return recipe.model_copy(update={"calibrate": embedded})
    if recipe.held_out and recipe.calibrate in (None, NO_IMAGES):
        raise UsageError(
            f"{recipe.budget} is measured on images held out of calibration: give --calibrate "
            "imagefolder:PATH"
        )
    return recipe


def check_price(recipe: Recipe, plans: Sequence[LayerPlan], plugins: Plugins) -> None:
    """Refuse a budget for layers none of which gets the price of a bit.

    Raises:
        UsageError: says what to do.
    """
    if not any(price_option(plan, plugins) for plan in plans):
        methods = ", ".join(dict.fromkeys(plan.choice.method for plan in plans))
        raise UsageError(
            f"{recipe.budget}: the size of no layer is left to choose ({methods}): leave the rules "
            "out, or let one name a method that knows the price of a bit, without ratio"
        )


def price_option(plan: LayerPlan, plugins: Plugins) -> str | None:
    """The option of a layer's method that takes the price; None where the method knows none, or
    the user chose the layer's size in another way."""
    option = plugins.quantizers.get(plan.choice.method).item.price_option
    fixed = plan.choice.ratio is not None or option in plan.choice.options
    return None if fixed else option


def priced(plans: Sequence[LayerPlan], plugins: Plugins, price: float) -> list[LayerPlan]:
    """The plans at a price of a bit."""
    result: list[LayerPlan] = []
    for plan in plans:
        option = price_option(plan, plugins)
        if option is not None:
            options = {**plan.choice.options, option: price}
            plan = replace(plan, choice=replace(plan.choice, options=options))
        result.append(plan)
    return result

"""Methods and images that a recipe under a budget gets where the user names none."""

from vqzoo.budget.methods import default_methods, methods_with_price
from vqzoo.errors import UsageError
from vqzoo.plugin.manager import Plugins
from vqzoo.plugin.text import parse_methods
from vqzoo.progress import Watcher
from vqzoo.runs.recipe import NO_IMAGES, Recipe


def with_budget_method(recipe: Recipe, plugins: Plugins, watcher: Watcher) -> Recipe:
    """A recipe whose methods can keep its budget: without a method, it gets those that know the
    price of a bit.

    Raises:
        UsageError: no method of the recipe, or none that is installed, knows a price; or an
            option fixes it.
    """
    if recipe.budget is None:
        return recipe
    if recipe.method is None:
        methods = ",".join(default_methods(plugins, recipe.budget))
        watcher.say(f"Method: {methods}.")
        return recipe.model_copy(update={"method": methods})
    named = [recipe.method, *(rule.method for rule in recipe.rules)]
    methods_of = [[plugins.quantizers.get(name) for name in parse_methods(text)] for text in named]
    option = methods_of[0][0].item.price_option
    if option is not None and option in recipe.options:
        raise UsageError(
            f"{recipe.budget} chooses the option {option} of {recipe.method}: leave one of them out"
        )
    if all(len(entries) == 1 and entries[0].item.price_option is None for entries in methods_of):
        knowing = ", ".join(methods_with_price(plugins)) or "none is installed"
        raise UsageError(
            f"{recipe.budget}: {recipe.method} knows no price of a bit: leave --method out, give a "
            f"method that does ({knowing}) or several, as in ecq,{recipe.method}, or --ratio in "
            f"the place of {recipe.budget}"
        )
    return recipe


def with_budget_images(recipe: Recipe, embedded: str | None, watcher: Watcher) -> Recipe:
    """A recipe that calibrates under a budget or to recover, where the network comes with images.

    Args:
        recipe: the request; `--calibrate none` keeps it from calibrating.
        embedded: the data that comes with the network, if any.
        watcher: is told what is added.

    Raises:
        UsageError: the budget is judged by held-out images, or the network is to recover or to be
            calibrated behind compressed layers, and there are none.
    """
    wants = recipe.budget is not None or recipe.recover
    if wants and recipe.calibrate is None and embedded is not None:
        watcher.say(
            f"Calibrating on {embedded}, which comes with the network; --calibrate none does not."
        )
        return recipe.model_copy(update={"calibrate": embedded})
    of_calibration = recipe.held_out and recipe.finetune is None
    if of_calibration and recipe.calibrate in (None, NO_IMAGES):
        raise UsageError(
            f"{recipe.budget} is measured on images held out of calibration: give --calibrate "
            "imagefolder:PATH"
        )
    if recipe.recover and recipe.calibrate in (None, NO_IMAGES):
        raise UsageError(
            "--recover learns from calibration images: give --calibrate imagefolder:PATH; a few "
            "hundred images will do, and no labels"
        )
    if recipe.sequential and recipe.calibrate in (None, NO_IMAGES):
        raise UsageError(
            "--sequential is about what layers see on calibration images: give --calibrate "
            "imagefolder:PATH"
        )
    return recipe

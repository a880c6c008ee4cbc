"""Find names and options in a grid that no cell could run with."""

from vqzoo.compression.options import validate_options
from vqzoo.errors import UsageError
from vqzoo.models.names import check_name
from vqzoo.models.registration import register_models
from vqzoo.plugin.files import plugin_files
from vqzoo.plugin.manager import installed_plugins
from vqzoo.plugin.text import parse_methods
from vqzoo.runs.recipe import Recipe


class NameCheck:
    """Checks the models, methods and options of recipes, each once; nothing is opened."""

    def __init__(self) -> None:
        register_models()
        self._known: set[str] = set()

    def problem(self, recipe: Recipe) -> tuple[str, str] | None:
        """The field with a name or an option that does not exist, and what to do; None if all do.

        Raises:
            UsageError: a plugin file of the recipe does not exist or fails.
        """
        if recipe.model not in self._known:
            try:
                check_name(recipe.model)
            except UsageError as error:
                return "model", str(error)
            self._known.add(recipe.model)
        request = f"{recipe.method} {sorted(recipe.options.items())} {recipe.plugins}"
        if recipe.method is None or request in self._known:
            return None
        with plugin_files(recipe.plugins):
            quantizers = installed_plugins().quantizers
        for name in parse_methods(recipe.method):
            try:
                method = quantizers.get(name).item
            except UsageError as error:
                return "method", str(error)
            try:
                validate_options(method, recipe.options)
            except UsageError as error:
                return "options" if recipe.options else "method", str(error)
        self._known.add(request)
        return None

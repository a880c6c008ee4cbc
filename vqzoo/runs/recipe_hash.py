"""What identifies the request of a run."""

from collections.abc import Mapping

from vqzoo.artifact.files import canonical_json, sha256_file, sha256_text
from vqzoo.budget.settings import BudgetSettings
from vqzoo.runs.fields.reading import reading_fields
from vqzoo.runs.recipe import Recipe


def recipe_hash(recipe: Recipe, model: str, weights_sha256: str, plugins: Mapping[str, str]) -> str:
    """A hash of the recipe with the model's full name, the weights and the plugins' versions.

    Raises:
        OSError: the class map or a plugin file cannot be read.
    """
    reading = {"class_map", "skip_unreadable"}
    budget = set() if recipe.budget else BudgetSettings.model_fields.keys()
    unset = {name for name in ("rest", "layout") if getattr(recipe, name) is None}
    unset |= {name for name in ("fold_norms", "sequential", "recover") if not getattr(recipe, name)}
    left_out = {"checkpoint", "plugins", *reading, *budget, *unset}
    fields = recipe.model_dump(mode="json", exclude=left_out)
    fields |= reading_fields(recipe.class_map, recipe.skip_unreadable)
    fields |= {"model": model, "weights_sha256": weights_sha256, "versions": dict(plugins)}
    if recipe.plugins:
        fields["plugins"] = [sha256_file(path) for path in recipe.plugins]
    return sha256_text(canonical_json(fields))

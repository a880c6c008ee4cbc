"""What identifies the request of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqzoo.artifact.files import canonical_json, sha256_file, sha256_text
from vqzoo.budget.settings import BudgetSettings
from vqzoo.runs.recipe import Recipe


def reading_fields(class_map: Path | None, skip_unreadable: bool) -> dict[str, Any]:
    """What a hash has of how images are read: nothing where they are read plainly.

    Raises:
        OSError: the class map cannot be read.
    """
    fields: dict[str, Any] = {}
    if class_map is not None:
        fields["class_map"] = sha256_file(class_map.expanduser())
    if skip_unreadable:
        fields["skip_unreadable"] = True
    return fields


def recipe_hash(recipe: Recipe, model: str, weights_sha256: str, plugins: Mapping[str, str]) -> str:
    """A hash of the recipe with the model's full name, the weights and the plugins' versions.

    Raises:
        OSError: the class map or a plugin file cannot be read.
    """
    reading = {"class_map", "skip_unreadable"}
    budget = set() if recipe.budget else BudgetSettings.model_fields.keys()
    rest = set() if recipe.rest else {"rest"}
    recover = set() if recipe.recover else {"recover"}
    left_out = {"checkpoint", "plugins", *reading, *budget, *rest, *recover}
    fields = recipe.model_dump(mode="json", exclude=left_out)
    fields |= reading_fields(recipe.class_map, recipe.skip_unreadable)
    fields |= {"model": model, "weights_sha256": weights_sha256, "versions": dict(plugins)}
    if recipe.plugins:
        fields["plugins"] = [sha256_file(path) for path in recipe.plugins]
    return sha256_text(canonical_json(fields))

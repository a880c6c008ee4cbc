"""The canonical commands that records and cards give: what makes the same artifact again."""

import shlex

from vqzoo.command_options import command_words
from vqzoo.models.sources import names_repository
from vqzoo.report.record import Record
from vqzoo.runs.finetune_request import FinetuneRequest
from vqzoo.runs.recipe import Recipe
from vqzoo.runs.source_artifact import source_folder


def canonical_command(recipe: Recipe, model: str) -> str:
    """The `vqzoo run` command of a recipe, without local paths."""
    return shlex.join(["vqzoo", "run", model, *command_words(recipe)])


def finetune_command(request: FinetuneRequest, record: Record | None) -> str:
    """The commands that make the artifact and fine-tune it, without local paths.

    Args:
        request: the fine-tuning.
        record: of the artifact; without one only `vqzoo finetune` is given.
    """
    published = names_repository(request.source)
    source = request.source if published else source_folder(request.source).name
    tuning = shlex.join(["vqzoo", "finetune", source, *command_words(request)])
    if record is None:
        return tuning
    return f"{record.command} --out {shlex.quote(source)} && {tuning}"

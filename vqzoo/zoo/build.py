"""Build many artifacts, one after another: finished ones are skipped, failures do not stop it."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from vqzoo.artifact.schema import REPORT_FILE
from vqzoo.errors import UsageError, VqzooError
from vqzoo.hub.repository import check_push, push
from vqzoo.plugin.manager import Plugins
from vqzoo.progress import Watcher
from vqzoo.runs.run import run
from vqzoo.zoo.expected_size import ExpectedSize, SizeUnknownError, expected_size
from vqzoo.zoo.recipes import ZooRecipe


@dataclass(frozen=True)
class Built:
    """The outcome for one recipe.

    Attributes:
        name: the recipe's name.
        state: "built", "existing" (an earlier build finished it), or "failed".
        detail: the artifact's folder or repository, or the cause of the failure.
        bytes: size of the weights file.
        ratio: how many times smaller the compressed layers are.
    """

    name: str
    state: Literal["built", "existing", "failed"]
    detail: str
    bytes: int | None = None
    ratio: float | None = None


def build(
    recipes: Sequence[ZooRecipe], watcher: Watcher, out: Path, *, push_to: str | None = None
) -> list[Built]:
    """Run recipes into folders under `out`, and publish the artifacts.

    A folder that the same recipe and weights produced is kept. One model is in memory at a time.

    Args:
        recipes: what to build.
        watcher: receives the progress.
        out: the folder for the artifacts' folders; created if it does not exist.
        push_to: the organization to publish in; None to publish nothing.

    Returns:
        The outcomes, in the order of the recipes.

    Raises:
        UsageError: `push_to` is not a valid organization, or a recipe to publish has random
            weights.
    """
    out.mkdir(parents=True, exist_ok=True)
    if push_to is not None:
        for recipe in recipes:
            check_push(f"{push_to}/{recipe.repo}", recipe.recipe.weights)
    results = []
    for index, recipe in enumerate(recipes):
        watcher.say(f"[{index + 1}/{len(recipes)}] {recipe.name}")
        results.append(_build_one(recipe, watcher, out / recipe.name, push_to))
        gc.collect()
    return results


def _build_one(recipe: ZooRecipe, watcher: Watcher, folder: Path, push_to: str | None) -> Built:
    before = _stamp(folder)
    try:
        # The zoo publishes the model that the recipe names, never an embedded relative.
        record = run(recipe.recipe, watcher, out=folder, reuse=True, fall_back=False).record
        outcome = Built(
            name=recipe.name,
            state="existing" if _stamp(folder) == before else "built",
            detail=str(folder),
            bytes=record.bytes.file,
            ratio=record.ratio.layers,
        )
        if push_to is None:
            return outcome
        return replace(outcome, detail=push(folder, f"{push_to}/{recipe.repo}").url)
    except (VqzooError, OSError, MemoryError) as error:
        watcher.say(f"{recipe.name} failed: {error}")
        return Built(recipe.name, "failed", str(error) or type(error).__name__)


def _stamp(folder: Path) -> int | None:
    report = folder / REPORT_FILE
    return report.stat().st_mtime_ns if report.is_file() else None


def plan(
    recipes: Sequence[ZooRecipe], plugins: Plugins
) -> list[tuple[ZooRecipe, ExpectedSize | SizeUnknownError]]:
    """The expected size of each recipe's artifact, or why only the weights can tell it.

    Raises:
        UsageError: a recipe names something that does not exist.
    """
    return [(recipe, _size(recipe, plugins)) for recipe in recipes]


def _size(recipe: ZooRecipe, plugins: Plugins) -> ExpectedSize | SizeUnknownError:
    try:
        return expected_size(recipe.recipe, plugins)
    except SizeUnknownError as error:
        return error
    except UsageError as error:
        raise UsageError(f"{recipe.name}: {error}") from error

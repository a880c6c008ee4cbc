"""Build many artifacts, one after another: finished ones are skipped, failures do not stop it."""

import shutil
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from vqzoo.errors import UsageError, VqzooError
from vqzoo.execution.cell import Cell, Outcome
from vqzoo.execution.run_cells import run_cells
from vqzoo.hub.repository import check_push, push
from vqzoo.plugin.execution.engine import WorkerLost
from vqzoo.plugin.manager import Plugins, installed_plugins
from vqzoo.progress import Watcher
from vqzoo.storage.shared import SharedFolder
from vqzoo.zoo.expected_size import ExpectedSize, SizeUnknownError, expected_size
from vqzoo.zoo.recipes import ZooRecipe

EXPECTED = (VqzooError, OSError, MemoryError, WorkerLost)  # failures that do not stop the rest


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
    recipes: Sequence[ZooRecipe],
    watcher: Watcher,
    out: Path,
    *,
    push_to: str | None = None,
    executor: Executor | None = None,
) -> list[Built]:
    """Run recipes into folders under `out`, and publish the artifacts.

    A folder that the same recipe and weights produced is kept. One model is in memory at a time, in
    each process.

    Args:
        recipes: what to build.
        watcher: receives the progress.
        out: the folder for the artifacts' folders; created if it does not exist.
        push_to: the organization to publish in; None to publish nothing.
        executor: makes the artifacts; None makes them one after another in this process.

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
    cells = {
        f"[{index + 1}/{len(recipes)}] {recipe.name}": recipe
        for index, recipe in enumerate(recipes)
    }
    shared = None if executor is None else SharedFolder(out / ".shared")
    waiting = [_cell(name, recipe, out, shared) for name, recipe in cells.items()]
    results: dict[str, Built] = {}
    for cell, outcome in run_cells(waiting, executor, installed_plugins(), watcher):
        result = _built(cells[cell.name], outcome, cell.folder, push_to)
        if result.state == "failed":
            watcher.say(f"{result.name} failed: {result.detail}")
        results[cell.name] = result
    if shared is not None:
        shutil.rmtree(shared.folder, ignore_errors=True)
    return [results[name] for name in cells]


def _cell(name: str, recipe: ZooRecipe, out: Path, shared: SharedFolder | None) -> Cell:
    return Cell(
        name=name,
        recipe=recipe.recipe,
        folder=out / recipe.name,
        log=out / f"{recipe.name}.log",
        shared=shared,
        fall_back=False,  # the zoo publishes the model that the recipe names, no relative of it
    )


def _built(recipe: ZooRecipe, outcome: Outcome, folder: Path, push_to: str | None) -> Built:
    error = outcome.error
    if error is not None and not isinstance(error, EXPECTED):
        raise error
    if outcome.record is None:
        return Built(recipe.name, "failed", str(error) or type(error).__name__)
    built = Built(
        name=recipe.name,
        state="existing" if outcome.existing else "built",
        detail=str(folder),
        bytes=outcome.record.bytes.file,
        ratio=outcome.record.ratio.layers,
    )
    if push_to is None:
        return built
    try:
        return replace(built, detail=push(folder, f"{push_to}/{recipe.repo}").url)
    except EXPECTED as failure:
        return Built(recipe.name, "failed", str(failure) or type(failure).__name__)


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

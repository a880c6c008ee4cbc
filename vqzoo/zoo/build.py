"""Build many artifacts, one after the other: what is done is skipped, what fails stops nothing."""

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
    """What became of one recipe.

    Attributes:
        name: the recipe's.
        state: "built", "there" (an earlier build finished it), or "failed".
        detail: the artifact's folder or repository, or the reason of the failure.
        bytes: of the weights file.
        ratio: how much smaller the compressed layers are.
    """

    name: str
    state: Literal["built", "there", "failed"]
    detail: str
    bytes: int | None = None
    ratio: float | None = None


def build(
    recipes: Sequence[ZooRecipe], watcher: Watcher, out: Path, *, push_to: str | None = None
) -> list[Built]:
    """Run recipes into folders under `out`, and publish them.

    A folder that the same recipe and weights finished is taken as it is. One model is in memory
    at a time.

    Args:
        push_to: the organization to publish in.

    Raises:
        UsageError: `push_to` cannot be pushed to, or a recipe asks for random weights then.
    """
    out.mkdir(parents=True, exist_ok=True)
    if push_to is not None:
        for recipe in recipes:
            check_push(f"{push_to}/{recipe.repo}", recipe.recipe.weights)
    found = []
    for index, recipe in enumerate(recipes):
        watcher.say(f"[{index + 1}/{len(recipes)}] {recipe.name}")
        found.append(_build_one(recipe, watcher, out / recipe.name, push_to))
        gc.collect()
    return found


def _build_one(recipe: ZooRecipe, watcher: Watcher, folder: Path, push_to: str | None) -> Built:
    before = _stamp(folder)
    try:
        # What the zoo publishes is what its recipe names, never a relative.
        record = run(recipe.recipe, watcher, out=folder, reuse=True, fall_back=False).record
        built = Built(
            name=recipe.name,
            state="there" if _stamp(folder) == before else "built",
            detail=str(folder),
            bytes=record.bytes.file,
            ratio=record.ratio.layers,
        )
        if push_to is None:
            return built
        return replace(built, detail=push(folder, f"{push_to}/{recipe.repo}").url)
    except (VqzooError, OSError, MemoryError) as error:
        watcher.say(f"{recipe.name} failed: {error}")
        return Built(recipe.name, "failed", str(error) or type(error).__name__)


def _stamp(folder: Path) -> int | None:
    report = folder / REPORT_FILE
    return report.stat().st_mtime_ns if report.is_file() else None


def plan(
    recipes: Sequence[ZooRecipe], plugins: Plugins
) -> list[tuple[ZooRecipe, ExpectedSize | SizeUnknownError]]:
    """What would be built, and how large or why that is not known, without weights.

    Raises:
        UsageError: a recipe names what does not exist.
    """
    return [(recipe, _size(recipe, plugins)) for recipe in recipes]


def _size(recipe: ZooRecipe, plugins: Plugins) -> ExpectedSize | SizeUnknownError:
    try:
        return expected_size(recipe.recipe, plugins)
    except SizeUnknownError as error:
        return error
    except UsageError as error:
        raise UsageError(f"{recipe.name}: {error}") from error

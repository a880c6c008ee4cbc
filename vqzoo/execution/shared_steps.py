"""What cells share: calls that compute it once, before the cells that need it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from vqzoo.artifact.files import canonical_json, sha256_text
from vqzoo.calls.schedule import Call
from vqzoo.execution.cell import Cell, at_work, work_on_cell
from vqzoo.plugin.manager import Plugins
from vqzoo.plugin.text import parse_methods
from vqzoo.runs.fields.rules import Rule
from vqzoo.runs.recipe import NO_IMAGES, Recipe
from vqzoo.runs.shared.steps import share_evaluation, share_statistics

# Fields of a recipe that decide what the dense network is, and what it is measured on.
_NETWORK = ("model", "checkpoint", "weights", "model_args", "fold_norms", "device", "plugins")
_MEASURED = ("data", "images", "class_map", "skip_unreadable")
# Fields that decide which statistics a calibration gathers, beside those of the network.
_CALIBRATION = ("calibrate", "calibration_images", "skip_unreadable", "layers", "recover", "seed")


def with_shared_steps(cells: Sequence[Cell], plugins: Plugins) -> list[Call]:
    """The calls of cells, which need the calls that compute what several of them share."""
    steps = [_steps(cell, plugins) for cell in cells]
    counts: dict[str, int] = {}
    for needed in steps:
        for step in needed:
            counts[step.key] = counts.get(step.key, 0) + 1
    first: dict[str, Call] = {}
    calls = []
    for cell, needed in zip(cells, steps, strict=True):
        needs = (first.setdefault(step.key, step) for step in needed if counts[step.key] > 1)
        calls.append(Call(cell.name, work_on_cell, cell, tuple(needs)))
    return calls


def evaluate_for_cells(cell: Cell) -> None:
    """Evaluate the dense network of a cell for all that share it."""
    with at_work(cell) as (here, log, _):
        assert here.shared is not None
        share_evaluation(cell.recipe, log, here.shared, fall_back=cell.fall_back)


def gather_for_cells(cell: Cell) -> None:
    """Gather what a cell's calibration says about its network for all that share it."""
    with at_work(cell) as (here, log, _):
        assert here.shared is not None
        share_statistics(cell.recipe, log, here.shared, fall_back=cell.fall_back)


def _steps(cell: Cell, plugins: Plugins) -> list[Call]:
    if cell.shared is None:
        return []
    recipe = cell.recipe
    network = _fields(recipe, _NETWORK)
    if recipe.weights == "random":
        network["weights"] = recipe.seed
    steps = [_step("dense", {**network, **_fields(recipe, _MEASURED)}, evaluate_for_cells, cell)]
    gathered = _gathered(recipe, plugins)
    kinds = {kind for part in gathered for kind in part}
    # Inputs stay on the machine that gathers them, even where the folder has a store.
    if kinds - ({"inputs"} if cell.store is not None else set()):
        of_calibration = recipe.held_out and recipe.finetune is None
        held_out = recipe.held_out_images if of_calibration else None
        facts = {**network, **_fields(recipe, _CALIBRATION), "held_out": held_out}
        facts |= {"rules": [rule.layers for rule in recipe.rules], "gathered": gathered}
        steps.append(_step("statistics", facts, gather_for_cells, _without_options(cell)))
    return steps


def _step(kind: str, facts: dict[str, Any], function: Any, cell: Cell) -> Call:
    assert cell.shared is not None
    key = f"{kind}-{sha256_text(canonical_json(facts))[:16]}"
    return Call(key, function, replace(cell, name=key, log=cell.log.with_name(f"{key}.log")))


def _fields(recipe: Recipe, names: Sequence[str]) -> dict[str, Any]:
    return recipe.model_dump(mode="json", include=set(names))


def _gathered(recipe: Recipe, plugins: Plugins) -> list[list[str]]:
    """What a calibration gathers for the recipe and each of its rules, as far as the recipe tells:
    second-order statistics, inputs of layers, both or neither."""
    parts: list[Recipe | Rule] = [recipe, *recipe.rules]
    if recipe.calibrate == NO_IMAGES or (recipe.calibrate is None and recipe.budget is None):
        return [[] for _ in parts]
    return [_gathered_for(part, plugins, of_all=recipe.budget is not None) for part in parts]


def _gathered_for(part: Recipe | Rule, plugins: Plugins, *, of_all: bool) -> list[str]:
    second_order = {
        claim.item.second_order
        for name in ([] if part.method is None or part.transforms else parse_methods(part.method))
        for claim in plugins.quantizers.claims(name)
    }
    kinds = {"second order"} if of_all or True in second_order else set()
    return sorted(kinds | ({"inputs"} if False in second_order else set()))


def _without_options(cell: Cell) -> Cell:
    """The cell without what is a method's own: a wrong option is not for others to fail of."""
    changes: dict[str, object] = {"options": {}, "ratio": None, "sequential": False}
    recipe = cell.recipe.model_copy(update=changes)
    return replace(cell, recipe=recipe)

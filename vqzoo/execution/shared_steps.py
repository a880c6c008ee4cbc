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
    """Gather the second-order statistics of a cell's network for all that share them."""
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
    if _uses_second_order(recipe, plugins):
        of_calibration = recipe.held_out and recipe.finetune is None
        held_out = recipe.held_out_images if of_calibration else None
        facts = {**network, **_fields(recipe, _CALIBRATION), "held_out": held_out}
        facts["rules"] = [rule.layers for rule in recipe.rules]
        steps.append(_step("statistics", facts, gather_for_cells, _without_options(cell)))
    return steps


def _step(kind: str, facts: dict[str, Any], function: Any, cell: Cell) -> Call:
    assert cell.shared is not None
    key = f"{kind}-{sha256_text(canonical_json(facts))[:16]}"
    return Call(key, function, replace(cell, name=key, log=cell.log.with_name(f"{key}.log")))


def _fields(recipe: Recipe, names: Sequence[str]) -> dict[str, Any]:
    return recipe.model_dump(mode="json", include=set(names))


def _uses_second_order(recipe: Recipe, plugins: Plugins) -> bool:
    """Whether a run keeps second-order statistics, as far as the recipe tells."""
    if recipe.calibrate == NO_IMAGES:
        return False
    if recipe.budget is not None:
        return True
    if recipe.calibrate is None:
        return False
    wholes: list[Recipe | Rule] = [recipe, *recipe.rules]
    names = [
        name
        for part in wholes
        if part.method is not None and not part.transforms
        for name in parse_methods(part.method)
    ]
    return any(
        claim.item.second_order for name in names for claim in plugins.quantizers.claims(name)
    )


def _without_options(cell: Cell) -> Cell:
    """The cell without what is a method's own: a wrong option is not for others to fail of."""
    changes: dict[str, object] = {"options": {}, "ratio": None, "sequential": False}
    recipe = cell.recipe.model_copy(update=changes)
    return replace(cell, recipe=recipe)

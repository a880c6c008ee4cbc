"""What a sweep would run: sizes computed from recipes, and times from cells that have finished."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vqzoo.errors import VqzooError
from vqzoo.execution.cell import Cell
from vqzoo.plugin.files import plugin_files
from vqzoo.plugin.manager import installed_plugins
from vqzoo.zoo.expected_size import expected_size

Times = Mapping[tuple[str, str], float]


@dataclass(frozen=True)
class PlannedCell:
    """A cell that a sweep would run.

    Attributes:
        cell: the cell.
        size: the weights file in words: "26,008", "≤ 26,008", or why it is not known.
        seconds: the mean of finished cells like it; None where there is none.
    """

    cell: Cell
    size: str
    seconds: float | None


def plan_cells(cells: Sequence[Cell], times: Times) -> Iterator[PlannedCell]:
    """Plan cells on networks without weights.

    Args:
        cells: the cells to plan.
        times: of `Results.seconds`.
    """
    for cell in cells:
        yield PlannedCell(cell, _size(cell), expected_seconds(cell, times))


def expected_seconds(cell: Cell, times: Times) -> float | None:
    """The mean time of finished cells of the same model and method; of any method without one."""
    recipe = cell.recipe
    exact = times.get((recipe.model, recipe.method or recipe.label))
    if exact is not None:
        return exact
    others = [seconds for (model, _), seconds in times.items() if model == recipe.model]
    return sum(others) / len(others) if others else None


def _size(cell: Cell) -> str:
    with plugin_files(cell.recipe.plugins):
        try:
            size = expected_size(cell.recipe, installed_plugins())
        except VqzooError as error:
            return str(error)
    return f"{'' if size.exact else '≤ '}{size.file:,}"
